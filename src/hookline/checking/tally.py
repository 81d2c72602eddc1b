"""Tallies: running facts on a parameter, and on the units of an activation or softmax, over all calls."""

import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Module

from hookline.checking.evidence import ParameterFacts, UnitFacts

NEARLY_ALL = 0.999
FLAT = 0.01  # closer than this to the end of its range, a sigmoid or tanh shrinks the gradient 25 times or more
NEVER = 2**31
NARROW = (torch.bfloat16, torch.float16)  # dtypes whose rounding may lose a usual update
UNITS_OF_PICTURES = 1  # the dimension of channels
NEXT_TO_NOTHING = 1e-3  # largest root mean square of a weight that starts close to 0: a usual step is as large
Kind = Literal["rectifier", "sigmoid", "tanh", "softmax"]


def nothing() -> None:
    """The value of `ParameterTally.latest` before a gradient has arrived."""


@dataclass(slots=True)
class ParameterTally:
    """The facts on one parameter so far. Tensors in it are single numbers on the parameter's device, which are read at
    the end of the check."""

    path: str
    parameter: Tensor
    nan: int = 0
    inf: int = 0
    norm: Tensor | None = None
    bad_pass: Tensor | None = None
    where: str = ""
    bad_gradient: Tensor | None = None
    gradients: int = 0
    renewed: int = 0
    latest: Callable[[], Tensor | None] = nothing
    largest_gradient: Tensor | None = None
    asked: int | None = None
    awaited: bool = False
    hooked: bool = False
    steps: int = 0
    rate: float | None = None
    moved: Tensor | None = None
    ratio: Tensor | None = None
    rates: list[float] = field(default_factory=list)
    moved_share: Tensor | None = None
    dirty: Tensor | None = None
    carried: Tensor | None = None
    alike: tuple[Tensor, Tensor] | None = None
    before: Tensor | None = None
    gradients_before: int = 0
    gradients_after: int = 0
    elsewhere: bool = False

    def expect_gradient(self) -> None:
        """Just before a gradient is accumulated: see whether the one that is there is 0, or was removed."""
        if self.dirty is not None:
            largest = None if self.parameter.grad is None else largest_of(self.parameter.grad)
            self.dirty = None if largest is None else self.dirty & (largest > 0)

    def see_gradient(self, parameter: Tensor, number: int) -> None:
        """Count a gradient that arrived after the outermost call of this number."""
        self.renewed += self.gradients > 0 and self.latest() is not parameter.grad
        self.gradients += 1
        self.latest = nothing if parameter.grad is None else weakref.ref(parameter.grad)
        largest = None if parameter.grad is None else largest_of(parameter.grad)
        if largest is not None:
            known = self.largest_gradient
            self.largest_gradient = largest if known is None else torch.maximum(known, largest)
            now = torch.where(largest.isfinite(), NEVER, number)
            self.bad_gradient = now if self.bad_gradient is None else torch.minimum(self.bad_gradient, now)

    def begin_step(self, rate: Any) -> None:
        """Keep the value of the parameter before an optimizer step."""
        self.steps += 1
        self.rates.append(float(rate))
        self.rate = max(self.rates[-1], self.rate or 0.0)
        if self.dirty is not None and self.gradients > self.gradients_after:
            self.carried = self.dirty.long() if self.carried is None else self.carried + self.dirty
        self.before = self.parameter.detach().clone()
        self.gradients_before = self.gradients

    def end_step(self) -> None:
        """See how an optimizer step has changed the parameter."""
        before, self.before = self.before, None
        if before is not None:
            self.dirty = torch.ones((), dtype=torch.bool, device=before.device)
            self.gradients_after = self.gradients
        if before is None or not before.numel():
            return
        wide = torch.promote_types(before.dtype, torch.float32)
        norm = torch.linalg.vector_norm(before, dtype=wide)
        change = torch.linalg.vector_norm(self.parameter.detach().to(wide) - before)
        ratio = torch.where(norm > 0, change / norm, 0.0).real
        if self.norm is not None:  # a parameter that starts close to 0 consists of its first steps
            nothing = self.norm < NEXT_TO_NOTHING * before.numel() ** 0.5
            ratio = torch.where(nothing, 0.0, ratio)
        if self.gradients - self.gradients_before > 1:  # LBFGS calls its closure again: one step is many
            ratio = torch.zeros_like(ratio)
        self.ratio = ratio if self.ratio is None else torch.maximum(self.ratio, ratio)
        changed = self.parameter.detach() != before
        if before.dtype in NARROW:
            self._see_share(changed)
        moved = changed.any()
        self.moved = moved if self.moved is None else self.moved | moved

    def _alike(self) -> Literal["equal", "constant", ""]:
        equal, constant = self.alike or (False, False)
        return "equal" if bool(equal) else "constant" if bool(constant) else ""

    def _see_share(self, changed: Tensor) -> None:
        grad = self.parameter.grad
        if grad is not None and grad.layout == torch.strided and grad.shape == changed.shape:
            counted = grad.detach() != 0
            share = (changed & counted).sum() / counted.sum().clamp(min=1)
        else:
            share = changed.float().mean()
        self.moved_share = share if self.moved_share is None else torch.maximum(self.moved_share, share)

    def facts(self) -> ParameterFacts:
        """The facts as plain data."""
        bad_pass = None if self.bad_pass is None else int(self.bad_pass)
        bad_gradient = None if self.bad_gradient is None else int(self.bad_gradient)
        now = self.norm if self.elsewhere else norm_of(self.parameter)
        return ParameterFacts(
            path=self.path,
            parameter=self.parameter,
            nan=self.nan,
            inf=self.inf,
            norm=None if self.norm is None else float(self.norm),
            bad_pass=None if bad_pass == NEVER else bad_pass,
            where=self.where,
            bad_gradient=None if bad_gradient == NEVER else bad_gradient,
            norm_now=None if now is None else float(now),
            gradients=self.gradients,
            renewed=self.renewed,
            largest_gradient=None if self.largest_gradient is None else float(self.largest_gradient),
            awaited=self.awaited,
            steps=self.steps,
            rate=self.rate,
            rates=tuple(self.rates),
            carried=0 if self.carried is None else int(self.carried),
            moved_share=None if self.moved_share is None else float(self.moved_share),
            alike=self._alike(),
            moved=None if self.moved is None else bool(self.moved),
            ratio=None if self.ratio is None else float(self.ratio),
            elsewhere=self.elsewhere,
        )


def largest_of(tensor: Tensor) -> Tensor | None:
    """The largest magnitude, as a tensor of one element, NaN if an element is; None if there is none, or it cannot be
    read."""
    with suppress(Exception), torch.no_grad():  # a tensor class may raise anything, and a check must never end a step
        values = tensor.detach()
        values = values.coalesce().values() if values.layout == torch.sparse_coo else values
        return values.abs().amax().float() if values.numel() and not values.is_meta else None
    return None


def alike(tensor: Tensor) -> tuple[Tensor, Tensor] | None:
    """Whether all rows of a weight are equal, and whether each row is one number, as tensors of one element; None
    without rows to compare, or if it cannot be read."""
    with suppress(Exception), torch.no_grad():  # as above
        values = tensor.detach()
        if values.is_meta or values.dim() < 2 or len(values) < 2 or values[0].numel() < 2:
            return None
        rows = values.reshape(len(values), -1)
        return (rows == rows[:1]).all(), (rows == rows[:, :1]).all()
    return None


def norm_of(tensor: Tensor) -> Tensor | None:
    """The L2 norm, as a tensor of one element; None if it cannot be read."""
    with suppress(Exception), torch.no_grad():  # as above
        values = tensor.detach()
        wide = torch.promote_types(values.dtype, torch.float32)
        return None if values.is_meta else torch.linalg.vector_norm(values, dtype=wide)
    return None


def units_of(output: Tensor) -> int:
    """The number of units: channels of an image, else elements of the last dimension."""
    return output.shape[UNITS_OF_PICTURES if output.dim() > 3 else -1] if output.dim() else 1


def tally_for(module: Module) -> "UnitTally | None":
    """A new tally for a module whose class name has ReLU, Sigmoid, Tanh or Softmax in it; None for others."""
    name = type(module).__name__.lower()
    if "relu" in name and "leaky" not in name:
        return UnitTally("rectifier")
    if name in ("sigmoid", "hardsigmoid"):
        return UnitTally("sigmoid")
    if name in ("tanh", "hardtanh"):
        return UnitTally("tanh")
    return UnitTally("softmax") if "softmax" in name and "log" not in name else None


@dataclass(slots=True)
class UnitTally:
    """The facts on the units of one module so far, as tensors on its device: a few numbers for each unit."""

    kind: Kind
    path: str = ""
    where: str = ""
    call: int | None = None
    functional: bool = False
    seen: int = 0
    observations: int = 0
    active: Tensor | None = None
    flat: list[Any] = field(default_factory=lambda: [0])

    def see(self, module: Module, output: Tensor) -> None:
        """Count one call."""
        if self.kind == "rectifier":
            self._see_active(output)
        elif self.kind == "softmax":
            self._see_rows(output, getattr(module, "dim", None))
        else:
            low = -1.0 if self.kind == "tanh" else 0.0
            self._count(((output < low + FLAT) | (output > 1.0 - FLAT)).sum(), output.numel())

    def _see_active(self, output: Tensor) -> None:
        unit = UNITS_OF_PICTURES if output.dim() > 3 else -1
        units = output.movedim(unit, -1).reshape(-1, output.shape[unit]) if output.dim() else output.reshape(1, 1)
        active = (units != 0).any(dim=0)
        self.active = active if self.active is None else self.active | active
        self.seen += 1
        self.observations += len(units)

    def _see_rows(self, output: Tensor, dim: int | None) -> None:
        along = dim if isinstance(dim, int) else -1
        if output.dim() and output.shape[along] > 1:
            largest = output.amax(dim=along)
            self._count((largest > NEARLY_ALL).sum(), largest.numel())

    def _count(self, flat: Tensor, observations: int) -> None:
        self.flat = [self.flat[0] + flat]
        self.seen += 1
        self.observations += observations

    def facts(self, *, alone: bool = True) -> UnitFacts:
        """The facts as plain data; `alone` is whether the module was called from this place only."""
        share = float(self.flat[0]) / self.observations if self.kind != "rectifier" else None
        return UnitFacts(
            path=self.path,
            where="" if alone else self.where,
            call=None if alone else self.call,
            observations=self.observations,
            units=1 if self.active is None else len(self.active),
            dead=None if self.active is None else int(torch.logical_not(self.active).sum()),
            saturated=share if self.kind in ("sigmoid", "tanh") else None,
            collapsed=share if self.kind == "softmax" else None,
        )
