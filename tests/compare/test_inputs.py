"""Each of two models is given the inputs in its own dtype, on its own device."""

import copy

import torch
from torch import Tensor, nn

import hookline
from hookline.compare.inputs import fitted

torch.manual_seed(0)
X = torch.randn(6, 4)


def test_cast_copy_gets_inputs_in_its_own_dtype() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))

    found = hookline.diff(model, copy.deepcopy(model).bfloat16(), X, tolerances=(0.1, 0.1))

    assert not found
    assert found[0].inputs["0"].dtypes == ("float32", "bfloat16")
    assert found.notes == ("the inputs were fitted to the second: float32 cast to bfloat16",)


def test_the_culprit_is_found_across_dtypes() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    other = copy.deepcopy(model).bfloat16()
    other[1].eps = 0.5

    assert hookline.diff(model, other, X, tolerances=(0.05, 0.05)).culprit.path == "1"
    assert hookline.diff(other, model, X, tolerances=(0.05, 0.05), grads=True).culprit.path == "1"


def test_a_model_of_several_dtypes_is_given_what_was_given() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4).bfloat16()

        def forward(self, x: Tensor) -> Tensor:
            return self.other(self.one(x).bfloat16())

    model = Mixed()

    assert fitted(((X,), {}), model) == (((X,), {}), "")
    assert hookline.diff(model, copy.deepcopy(model), X).notes == ()


def test_a_model_without_weights_is_given_what_was_given() -> None:
    inputs = ((X.double(),), {})

    assert fitted(inputs, nn.ReLU()) == (inputs, "")
    assert fitted(inputs, nn.LazyLinear(4)) == (inputs, "")


def test_only_floats_are_cast_and_what_is_shared_stays_shared() -> None:
    inputs = ((X, torch.arange(3)), {"more": [X, {"mask": X > 0}]})

    (args, kwargs), told = fitted(inputs, nn.Linear(4, 4).half())

    assert args[0] is kwargs["more"][0]
    assert [args[0].dtype, args[1].dtype, kwargs["more"][1]["mask"].dtype] == [torch.float16, torch.int64, torch.bool]
    assert told == "float32 cast to float16"
    assert inputs[1]["more"][0] is X


def test_an_input_that_requires_a_gradient_still_does() -> None:
    (args, _), _ = fitted(((X.clone().requires_grad_(),), {}), nn.Linear(4, 4).double())

    assert args[0].requires_grad
    assert args[0].is_leaf


def test_inputs_are_moved_to_the_device_of_the_weights() -> None:
    (args, _), told = fitted(((X,), {}), nn.Linear(4, 4, device="meta"))

    assert args[0].is_meta
    assert told == "moved from cpu to meta"
