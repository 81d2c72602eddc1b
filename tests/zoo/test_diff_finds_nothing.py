"""Two models that are the same do not part, over the zoo, forward and backward; where one weight is another, it is named."""

import copy
from contextlib import suppress

import pytest
import torch
from torch import nn

import hookline
from zoo.models import TRANSFORMERS, ZOO, Specimen
from zoo.runs import expected, one_thread, seed_everything

MADE_BY_A_FORWARD = ("lazy_linear",)  # its weights are drawn anew
LOST_BY_A_COPY = ("already_hooked", "own_forward")  # the hooks of a parameter; the weights that a function encloses
CHECKPOINTS_WITHOUT_GRADIENTS = "None of the inputs have requires_grad=True"
COMPARED = [each for each in ZOO if each.name not in MADE_BY_A_FORWARD]


def twins(specimen: Specimen, *, train: bool) -> tuple[nn.Module, nn.Module]:
    seed_everything()
    model = specimen.build().train(train)
    if specimen.name not in LOST_BY_A_COPY:
        with suppress(Exception):  # a model that does not let itself be copied is built twice
            return model, copy.deepcopy(model)
    seed_everything()
    return model, specimen.build().train(train)


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("specimen", COMPARED, ids=lambda specimen: specimen.name)
def test_identical_models_have_no_difference(specimen: Specimen, train: bool) -> None:
    with one_thread(), expected((*specimen.warnings, CHECKPOINTS_WITHOUT_GRADIENTS)):
        one, other = twins(specimen, train=train)
        args, kwargs = specimen.inputs()
        state = torch.get_rng_state()
        found = hookline.diff(one, other, *args, grads=train, loss=specimen.loss if train else None, **kwargs)

    assert not found, found.summary
    assert len(found) > 0
    assert found.unmatched == ()
    assert found.weights == ()
    assert torch.equal(torch.get_rng_state(), state)


def test_what_a_copy_loses_is_found() -> None:
    specimen = next(each for each in ZOO if each.name == "already_hooked")
    model = specimen.build()
    args, _ = specimen.inputs()

    found = hookline.diff(model, copy.deepcopy(model), *args, grads=True, loss=specimen.loss)

    assert found.culprit is not None
    assert found.culprit.path == "2"
    assert [key for key, part in found.culprit.grad_inputs.items() if part.differs] == ["weight"]


def test_a_copy_whose_forward_uses_the_weights_of_the_first_has_no_gradient() -> None:
    specimen = next(each for each in ZOO if each.name == "own_forward")
    model = specimen.build()
    args, _ = specimen.inputs()

    found = hookline.diff(model, copy.deepcopy(model), *args, grads=True, loss=specimen.loss)

    assert found
    assert not hookline.diff(model, copy.deepcopy(model), *args)


@pytest.mark.parametrize("specimen", TRANSFORMERS, ids=lambda specimen: specimen.name)
def test_the_module_of_a_changed_weight_is_the_culprit(specimen: Specimen) -> None:
    with one_thread(), expected((*specimen.warnings, CHECKPOINTS_WITHOUT_GRADIENTS)):
        one, other = twins(specimen, train=False)
        holding = [path for path, module in other.named_modules() if "weight" in module._parameters]
        changed = holding[len(holding) // 2]
        with torch.no_grad():
            weight = other.get_submodule(changed).weight
            weight.copy_(weight * 1.5 + 0.1)
        args, kwargs = specimen.inputs()
        found = hookline.diff(one, other, *args, **kwargs)

    assert found.culprit is not None
    assert found.culprit.path == changed
    assert {cause.kind for cause in found.culprit.causes} == {"weights"}
