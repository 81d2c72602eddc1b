"""Tests that every model of the zoo repeats itself bit by bit, so that a later difference is hookline's doing."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from zoo.models import TRANSFORMERS, ZOO, Specimen, leaves, specimen_by_name
from zoo.runs import Outcome, assert_identical, dense_parts, difference, run

WITHOUT_GRADIENT = {
    "attention_fast_path",
    "relu_in_place_on_input",
    "returns_integers",
    "transformer_encoder_fast_path",
    "transformer_encoder_nested_tensor",
    "transformer_encoder_without_nested_tensor",
}


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
def test_two_runs_from_the_same_seeds_are_identical(specimen: Specimen, train: bool) -> None:
    first, second = run(specimen, train=train), run(specimen, train=train)

    assert_identical(first, second)
    assert sends_gradient(first) is (specimen.name not in WITHOUT_GRADIENT)


def sends_gradient(outcome: Outcome) -> bool:
    """Says whether a parameter or an input received a gradient that is not all zero (or is empty)."""
    gradients = [*outcome.parameter_gradients.values(), *outcome.input_gradients.values()]
    parts = [part for gradient in gradients if gradient is not None for part in dense_parts(gradient)]
    return any(part.numel() == 0 or bool((part != 0).any()) for part in parts)


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("attention_fast_path", "_native_multi_head_attention"),
        ("transformer_encoder_fast_path", "_transformer_encoder_layer_fwd"),
        ("transformer_encoder_nested_tensor", "_nested_tensor_from_mask"),
        ("transformer_encoder_without_nested_tensor", "_transformer_encoder_layer_fwd"),
    ],
)
def test_fast_paths_are_taken_where_nothing_is_attached(
    name: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = Mock(wraps=getattr(torch, kernel))
    monkeypatch.setattr(torch, kernel, fast)

    run(specimen_by_name(name), train=False)

    assert fast.called


def test_names_are_unique_and_lead_to_their_specimens() -> None:
    assert [specimen_by_name(specimen.name) for specimen in ZOO] == ZOO
    assert len(TRANSFORMERS) >= 34


def test_a_changed_run_is_told_apart_and_named() -> None:
    specimen = specimen_by_name("batch_norm")
    plain = run(specimen, train=True)

    with pytest.raises(AssertionError, match=r"outputs : .* elements[\s\S]*parameter_gradients 0.weight"):
        assert_identical(plain, run(specimen, train=True, around=drawing_a_number_and_doubling))
    with pytest.raises(AssertionError, match=r"random_states torch"):
        assert_identical(plain, run(specimen, train=True, around=drawing_a_number_and_doubling))
    with pytest.raises(AssertionError, match=r"buffers 1.running_mean"):
        assert_identical(plain, run(specimen, train=False))


@contextmanager
def drawing_a_number_and_doubling(model: nn.Module) -> Iterator[None]:
    """Takes a number from torch's generator and doubles what the first layer returns."""
    torch.rand(())
    handle = model[0].register_forward_hook(lambda _, args, output: output * 2 + 1)
    yield
    handle.remove()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.tensor(0.0), torch.tensor(-0.0)),
        (torch.tensor(1.0), torch.tensor(1)),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.zeros(2, requires_grad=True)),
        (torch.zeros(2), nn.Parameter(torch.zeros(2))),
        (torch.zeros(2), None),
        (torch.tensor([True]), torch.tensor([False])),
        (torch.tensor(1j), torch.tensor(1j).conj()),
        (torch.eye(2).to_sparse(), torch.eye(2)),
        (torch.eye(2).to_sparse(), (torch.eye(2) * 2).to_sparse()),
        (torch.zeros(0, 2), torch.zeros(0, 3)),
        (3, 4),
        (1, True),
    ],
    ids=str,
)
def test_unlike_leaves_differ(a: object, b: object) -> None:
    assert difference(a, b) is not None


@pytest.mark.parametrize(
    "leaf",
    [
        torch.tensor([float("nan"), float("inf")]),
        torch.tensor(2.0 + 1j),
        torch.zeros(0, 3),
        torch.zeros(2, 3).t(),
        torch.tensor([True, False]),
        torch.zeros(3, dtype=torch.bfloat16),
        torch.eye(2).to_sparse(),
        torch.nested.nested_tensor([torch.zeros(2), torch.ones(3)], layout=torch.jagged),
        None,
        "label",
        float,
    ],
    ids=str,
)
def test_a_leaf_is_identical_to_its_copy(leaf: object) -> None:
    copy = leaf.clone() if isinstance(leaf, Tensor) else leaf

    assert difference(leaf, copy) is None


def test_leaves_are_found_by_path_in_nested_containers() -> None:
    tree = {"x": [1, (2, None)], "y": {3: "label"}}

    assert dict(leaves(tree)) == {"['x'][0]": 1, "['x'][1][0]": 2, "['x'][1][1]": None, "['y'][3]": "label"}
