"""In a list of modules into which one was put, or from which one was taken, the others find their partners."""

import copy

import pytest
import torch
from torch import nn

import hookline
from hookline.testing import recorded

X = torch.linspace(-1, 1, 24).reshape(3, 8)


def layers(count: int = 3) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(8, 8) for _ in range(count)]


def partners(found: hookline.Diff) -> dict[str, str]:
    return {pair.path_a: pair.path_b for pair in found if pair.path_a}


@pytest.mark.parametrize(
    "extra", [nn.Dropout(0.0), nn.Identity(), nn.Sequential()], ids=["Dropout", "Identity", "empty"]
)
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_module_that_does_nothing_moves_no_partner(extra: nn.Module, place: int) -> None:
    a = layers()
    longer = [*a[:place], extra, *a[place:]]

    found = hookline.diff(nn.Sequential(*a), nn.Sequential(*longer), X)

    assert not found
    assert found.identical
    assert found.weights == ()
    assert found.only_a == ()
    assert [path for path, _, _ in found.only_b] == [str(place)]
    assert partners(found) == {str(row): str(longer.index(layer)) for row, layer in enumerate(a)}


def test_a_module_that_was_taken_out_is_without_a_partner() -> None:
    a = layers()

    found = hookline.diff(nn.Sequential(a[0], nn.Dropout(0.0), *a[1:]), nn.Sequential(*a), X)

    assert not found
    assert found.only_a == (("1", 0, "Dropout"),)
    assert partners(found) == {"0": "0", "2": "1", "3": "2"}
    assert "matched by weights, values, class, shape and order: 2 → 1, 3 → 2" in repr(found)


def test_a_layer_of_the_same_class_is_told_from_the_others_by_weights() -> None:
    a = layers()
    nothing = nn.Linear(8, 8)
    with torch.no_grad():
        nothing.weight.copy_(torch.eye(8))
        nothing.bias.zero_()

    found = hookline.diff(nn.Sequential(*a), nn.Sequential(a[0], nothing, *a[1:]), X)

    assert not found
    assert partners(found) == {"0": "0", "1": "2", "2": "3"}


@pytest.mark.parametrize("keep", ["copy", "stats", "shape", hookline.fingerprint])
def test_saved_runs_are_realigned_by_class_and_shape(keep: object) -> None:
    a = layers()
    runs = [recorded(nn.Sequential(*own), X, keep=keep) for own in (a, [a[0], nn.Identity(), *a[1:]])]

    found = hookline.diff(*runs)

    assert not found
    assert partners(found) == {"0": "0", "1": "2", "2": "3"}


def test_saved_runs_are_realigned_by_values() -> None:
    a = layers()
    nothing = copy.deepcopy(a[0])
    with torch.no_grad():
        nothing.weight.copy_(torch.eye(8))
        nothing.bias.zero_()

    found = hookline.diff(*(recorded(nn.Sequential(*own), X, keep="copy") for own in (a, [a[0], nothing, *a[1:]])))

    assert not found
    assert partners(found) == {"0": "0", "1": "2", "2": "3"}


def test_modules_in_the_moved_ones_move_along() -> None:
    blocks = [nn.Sequential(layer, nn.ReLU()) for layer in layers()]

    found = hookline.diff(nn.Sequential(*blocks), nn.Sequential(nn.Identity(), *blocks), X)

    assert not found
    assert partners(found)["1.0"] == "2.0"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([0, "LayerNorm", 1], [0, "RMSNorm", 1]),
        ([0, 1], [1, 0]),
        ([0, 1, 2], [1, 2, 0]),
        ([0, "ReLU", 1, 2], [0, "GELU", 1, 2]),
        ([0, 1, 2], [0, 1]),
    ],
    ids=["another class", "swapped", "turned", "another activation", "one dropped at the end"],
)
def test_modules_that_only_differ_are_paired_by_place(one: list, other: list) -> None:
    a = layers()
    kinds = {"LayerNorm": nn.LayerNorm(8), "RMSNorm": nn.RMSNorm(8), "ReLU": nn.ReLU(), "GELU": nn.GELU()}
    models = [nn.Sequential(*(kinds[each] if each in kinds else a[each] for each in own)) for own in (one, other)]

    found = hookline.diff(*models, X)

    assert found
    assert all(path == partner for path, partner in partners(found).items())


def test_a_module_that_stands_elsewhere_is_still_the_partner() -> None:
    a = layers(2)

    found = hookline.diff(nn.Sequential(a[0], nn.ReLU(), a[1]), nn.Sequential(nn.ReLU(), *a), X)

    assert partners(found) == {"0": "1", "1": "0", "2": "2"}
    assert found.culprit.path == ""
    assert "calls its modules in another order: 0, 1, 2 vs 1, 0, 2" in found.culprit.why


def test_a_mapping_counts_before_the_places() -> None:
    a = layers()

    found = hookline.diff(nn.Sequential(*a), nn.Sequential(a[0], nn.Identity(), *a[1:]), X, mapping={"1": "1"})

    assert found["1"].path_b == "1"
    assert found["2"].path_b == "3"


@pytest.mark.parametrize("first", [True, False], ids=["the second wraps", "the first wraps"])
def test_model_wrapped_in_a_list_is_compared_with_the_bare_one(first: bool) -> None:
    model = nn.Sequential(*layers(2), nn.ReLU())
    wrapped = nn.Sequential(nn.Identity(), copy.deepcopy(model))
    other = copy.deepcopy(wrapped)
    with torch.no_grad():
        other[1][1].bias[0] += 1

    same = hookline.diff(*(model, wrapped) if first else (wrapped, model), X)
    found = hookline.diff(*(model, other) if first else (other, model), X)

    assert not same
    assert same.weights == ()
    assert found.culprit.path == ("1" if first else "1.1")
    assert found.culprit.why.startswith("bias differs")


def test_layers_of_two_alike_blocks_stay_in_their_places() -> None:
    block = nn.Sequential(*layers(2))

    found = hookline.diff(block, nn.Sequential(block, copy.deepcopy(block)), X)

    assert partners(found) == {"0": "0", "1": "1"}
