"""Each planted divergence is found: the module that makes it is named, and why."""

import pytest
import torch

import hookline
from divergent import moved  # noqa: F401  # puts more on the list
from divergent.pairs import PAIRS, Planted, found_in, readers


@pytest.mark.graph
@pytest.mark.parametrize("planted", PAIRS, ids=lambda planted: planted.name)
def test_the_culprit_of_a_planted_divergence_is_named(planted: Planted) -> None:
    found = found_in(planted)

    assert found
    assert found.culprit is not None
    assert found.culprit.path == planted.culprit
    assert planted.cause in {cause.kind for cause in found.culprit.causes}
    assert planted.says in found.culprit.why
    assert {pair.path for pair in found.culprits} == {planted.culprit} | ALSO.get(planted.name, set())


ALSO = {
    "gelu exact or tanh": {"layers.1.activation", "layers.2.activation"},
}


def test_there_are_at_least_twenty() -> None:
    assert len(PAIRS) >= 20
    assert len({planted.name for planted in PAIRS}) == len(PAIRS)


def test_without_the_fault_there_is_no_difference() -> None:
    model, other, inputs = readers()

    found = hookline.diff(model, other, *inputs, grads=True)

    assert not found
    assert found.identical
    assert found.first is found.culprit is None


@pytest.mark.graph
@pytest.mark.parametrize("planted", PAIRS, ids=lambda planted: planted.name)
def test_fingerprints_name_the_same_culprit(planted: Planted) -> None:
    model, other, inputs = planted.plant()

    found = hookline.diff(model, other, *inputs, keep=hookline.fingerprint, **planted.options)

    assert found.culprit is not None
    assert found.culprit.path == planted.culprit


def test_nothing_of_the_models_is_changed() -> None:
    model, other, inputs = readers()
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    state = torch.get_rng_state()
    other.layers[1].norm.eps = 1e-3

    assert hookline.diff(model.train(), other.train(), *inputs, grads=True)

    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())
    assert all(parameter.grad is None for each in (model, other) for parameter in each.parameters())
