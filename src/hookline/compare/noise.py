"""What rounding does to gradients and buffers: those of a model whose weights, outputs and gradients are rounded."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import Module

from hookline.compare.difference import Pair
from hookline.compare.recorded import Differences
from hookline.compare.rounding import ARITHMETIC, ELEMENT
from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import make_hooks
from hookline.matching.tensors import Difference
from hookline.model.select import Selection
from hookline.model.tensors import exchange

TIMES = 4.0  # as large as the noise may a difference be: functions between modules round too, and are not seen
CANCELLING = 64.0  # the same where rounding changes a gradient by all of its norm, as of a bias before a batch norm
FIRST = float("-inf")
SCALES = (1.0, 1.19, 1.41)  # what is rounded is scaled by these, one run each: other numbers are rounded up, and down
Noise: TypeAlias = Mapping[int, list[Pair]]  # by the number of a pair: of its call in a model, and in each rounded run


@dataclass(frozen=True, slots=True)
class Rounding:
    """How a run is rounded: to a dtype, after numbers were scaled."""

    dtype: torch.dtype
    scale: float = 1.0

    def __call__(self, tensor: Tensor) -> Tensor:
        """The rounded tensor, in its own dtype."""
        return ((tensor * self.scale).to(self.dtype).to(tensor.dtype)) / self.scale


class Rounded(Function):
    """A tensor rounded to a dtype and cast back; its gradient likewise."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rounding: Rounding) -> Tensor:
        """The rounded tensor."""
        ctx.rounding = rounding
        return rounding(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """The rounded gradient."""
        return ctx.rounding(gradient), None


@contextmanager
def rounding_outputs(selection: Selection, rounding: Rounding) -> Iterator[None]:
    """A block in which the modules return their floating outputs rounded to a dtype, and receive the gradients of these
    so."""

    def round_output(call: Call) -> None:
        call.output = exchange(call.output, lambda tensor: _rounded(tensor, rounding), [])

    handle = attach(selection, make_hooks(after=round_output, order=FIRST, compiled="outside"))
    try:
        yield
    finally:
        handle.remove()


def rounded_parameters(model: Module, rounding: Rounding) -> dict[str, Tensor]:
    """Copies of the parameters by name, rounded to a dtype, that require gradients as these do."""
    return {
        name: _rounded(parameter.detach(), rounding).clone().requires_grad_(parameter.requires_grad)
        for name, parameter in model.named_parameters()
    }


def _rounded(tensor: Tensor, rounding: Rounding) -> Tensor:
    if not tensor.is_floating_point() or torch.finfo(tensor.dtype).eps >= torch.finfo(rounding.dtype).eps:
        return tensor
    found: Tensor = Rounded.apply(tensor, rounding)  # type: ignore[no-untyped-call]
    return found


def fold(pairs: list[Pair], noise: Noise, dtype: torch.dtype) -> list[Pair]:
    """The pairs, in which gradients and buffers that differ no more than rounding explains do not count as different:
    some times as much as rounding to this dtype changed them in one of the models itself, or a few units in the last
    place. What is NaN or infinite in one of them only counts."""
    least = ARITHMETIC * torch.finfo(dtype).eps
    folded = []
    for pair in pairs:
        known = noise.get(pair.number, [])
        parts: dict[str, Any] = {name: getattr(pair, name) for name in ("grads", "grad_inputs", "buffers")}
        for name, part in parts.items():
            parts[name] = _folded(part, [getattr(each, name) for each in known], least)
        folded.append(replace(pair, **parts))
    return folded


def _folded(found: Differences, noise: list[Differences], least: float) -> Differences:
    return {
        key: replace(each, differs=False)
        if each.differs and _explained(each, [part[key] for part in noise if key in part], least)
        else each
        for key, each in found.items()
    }


def _explained(found: Difference, noise: list[Difference], least: float) -> bool:
    if found.nan or math.isnan(found.error) or math.isnan(found.absolute) or found.other_shape:
        return False
    if found.error <= least:
        return True
    error = max((each.error for each in noise if not math.isnan(each.error)), default=0.0)
    absolute = max((each.absolute for each in noise if not math.isnan(each.absolute)), default=0.0)
    times = TIMES if error < 1 else CANCELLING
    return found.error <= times * error and found.absolute <= ELEMENT * times * absolute


def fold_excused(pairs: list[Pair]) -> list[Pair]:
    """The pairs of two runs, in which gradients and buffers do not count where rounding explains the outputs: without
    the models at hand nothing tells what it explains of them."""
    return [replace(pair, **_all_folded(pair)) if pair.excused == "rounding" else pair for pair in pairs]


def _all_folded(pair: Pair) -> dict[str, Any]:
    parts: dict[str, Differences] = {name: getattr(pair, name) for name in ("grads", "grad_inputs", "buffers")}
    return {
        name: {key: each if each.nan else replace(each, differs=False) for key, each in part.items()}
        for name, part in parts.items()
    }
