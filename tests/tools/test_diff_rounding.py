"""diff of models in two precisions: which gradients and buffers rounding explains."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hookline

DTYPES = [torch.bfloat16, torch.float16]
PICTURES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))


def pictures() -> nn.Module:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    into = (nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(*into, block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def rows() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 4))


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 1.3 * gradient


class WrongBackward(nn.GELU):
    def forward(self, x: Tensor) -> Tensor:
        return Scaled.apply(super().forward(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_that_rounding_explains_do_not_count(dtype: torch.dtype) -> None:
    for model, x in ((rows(), ROWS), (pictures(), PICTURES)):
        found = hookline.diff(model, copy.deepcopy(model).to(dtype), x, grads=True)

        assert found.same
        assert found.culprit is None
        assert any(pair.folded for pair in found)


def test_rounded_gradients_are_excused_with_coarse_model_first() -> None:
    model = pictures()

    assert hookline.diff(copy.deepcopy(model).bfloat16(), model, PICTURES, grads=True).same


def test_gradients_of_a_norm_that_cancel_do_not_count() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True), 2)

    found = hookline.diff(model, copy.deepcopy(model).bfloat16(), torch.randn(2, 6, 32), grads=True)

    assert found.same
    assert max(each.error for pair in found for each in pair.folded.values()) > 10


@pytest.mark.parametrize("dtype", DTYPES)
def test_running_statistics_that_rounding_explains_do_not_count(dtype: torch.dtype) -> None:
    model = pictures()

    assert hookline.diff(model, copy.deepcopy(model).to(dtype), PICTURES).same


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("model", "x", "path"), [(rows(), ROWS, "3"), (pictures(), PICTURES, "3.0")])
def test_weight_that_is_off_leads_beside_rounded_gradients(
    dtype: torch.dtype, model: nn.Module, x: Tensor, path: str
) -> None:
    port = copy.deepcopy(model).to(dtype)
    with torch.no_grad():
        port.get_submodule(path).weight *= 1.2

    found = hookline.diff(model, port, x, grads=True)

    assert found
    assert [pair.path for pair in found.culprits] == [path]


def test_wrong_backward_is_no_rounding() -> None:
    model = rows()
    port = copy.deepcopy(model)
    port[1] = WrongBackward()

    found = hookline.diff(model, port.bfloat16(), ROWS, grads=True)

    assert found.culprit.path == "1"
    assert not found.culprit.output_differs
    assert found["0"].gradients_differ
    assert not found["2"].gradients_differ


def test_wrong_momentum_is_no_rounding() -> None:
    model = pictures()
    port = copy.deepcopy(model).bfloat16()
    port[1].momentum = 0.2

    found = hookline.diff(model, port, PICTURES)

    assert found.culprit.path == "1"
    assert "momentum 0.1 vs 0.2" in found.culprit.why


def test_rounded_gradients_are_noted() -> None:
    model = rows()

    found = hookline.diff(model, copy.deepcopy(model).bfloat16(), ROWS, grads=True)

    assert "gradients and buffers: rounding one model changes them as much" in repr(found).replace("\n", " ")


def test_tolerances_alone_decide_on_gradients() -> None:
    model = rows()

    assert hookline.diff(model, copy.deepcopy(model).bfloat16(), ROWS, grads=True, tolerances=(1e-6, 1e-9))


def test_comparing_precisions_changes_nothing() -> None:
    model, port = pictures(), pictures().bfloat16()
    before = [{name: tensor.clone() for name, tensor in each.state_dict().items()} for each in (model, port)]
    state = torch.get_rng_state()

    hookline.diff(model, port, PICTURES, grads=True)

    for each, held in zip((model, port), before, strict=True):
        assert all(torch.equal(tensor, held[name]) for name, tensor in each.state_dict().items())
        assert all(parameter.grad is None for parameter in each.parameters())
        assert not len(hookline.hooks(each))
    assert torch.equal(torch.get_rng_state(), state)


def recorded_step(model: nn.Module, dtype: torch.dtype, *, scale: float = 1.0) -> hookline.Run:
    """One step of a copy in a dtype, whose Tanh passes on its gradient times a factor."""
    own = copy.deepcopy(model).to(dtype)
    own[1].register_full_backward_hook(lambda module, given, got: (given[0] * scale,))  # type: ignore[operator]
    with hookline.watch(own, keep="copy", inputs="copy", grads=True) as run:
        own(torch.linspace(-1, 1, 256).reshape(32, 8).to(dtype)).float().square().mean().backward()
    return run


@pytest.mark.parametrize(("scale", "told"), [(1.0, False), (1.5, True)])
def test_two_runs_say_that_gradients_may_be_more_than_rounding(scale: float, told: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    found = hookline.diff(recorded_step(model, torch.float32), recorded_step(model, torch.bfloat16, scale=scale))

    assert any("differ by more than the outputs, up to 0.5 of the norm at 0" in note for note in found.notes) == told
