"""A model whose weights, outputs and gradients are rounded to a dtype, to see how much rounding alone changes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import Module

from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import make_hooks
from hookline.model.select import Selection
from hookline.model.tensors import exchange

FIRST = float("-inf")


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
    """A block in which the modules return their floating outputs rounded, and receive the gradients of these
    rounded."""

    def round_output(call: Call) -> None:
        call.output = exchange(call.output, lambda tensor: _rounded(tensor, rounding), [])

    handle = attach(selection, make_hooks(after=round_output, order=FIRST, compiled="outside"))
    try:
        yield
    finally:
        handle.remove()


def rounded_parameters(model: Module, rounding: Rounding) -> dict[str, Tensor]:
    """Rounded copies of the parameters, by name, that require gradients as the parameters do."""
    return {
        name: _rounded(parameter.detach(), rounding).clone().requires_grad_(parameter.requires_grad)
        for name, parameter in model.named_parameters()
    }


def _rounded(tensor: Tensor, rounding: Rounding) -> Tensor:
    if not tensor.is_floating_point() or torch.finfo(tensor.dtype).eps >= torch.finfo(rounding.dtype).eps:
        return tensor
    found: Tensor = Rounded.apply(tensor, rounding)  # type: ignore[no-untyped-call]
    return found
