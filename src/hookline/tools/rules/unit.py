"""UnitTally: running facts on what the units of an activation or a softmax give, over all its calls."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Module

from hookline.tools.rules.evidence import UnitFacts

NEARLY_ALL = 0.999
FLAT = 0.01  # as far from the end of its range as this, and a sigmoid or tanh passes on a gradient 25 times smaller
Kind = Literal["rectifier", "sigmoid", "tanh", "softmax"]


def tally_for(module: Module) -> "UnitTally | None":
    """An empty tally, where a module is of a class that units are counted of: what has ReLU, Sigmoid, Tanh or Softmax
    in its name."""
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
    """What is known of one module's units so far, as tensors on its device; a few numbers for each unit."""

    kind: Kind
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
        unit = 1 if output.dim() > 3 else -1  # a picture's channels, else the last dimension
        units = output.movedim(unit, -1).reshape(-1, output.shape[unit]) if output.dim() else output.reshape(1, 1)
        active = (units != 0).any(dim=0)
        if self.active is not None and self.active.shape != active.shape:
            return  # a module that is called on units of several kinds: its first kind counts
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

    def facts(self) -> UnitFacts:
        """What came of it."""
        share = float(self.flat[0]) / self.observations if self.kind != "rectifier" else None
        return UnitFacts(
            observations=self.observations,
            units=1 if self.active is None else len(self.active),
            dead=None if self.active is None else int(torch.logical_not(self.active).sum()),
            saturated=share if self.kind in ("sigmoid", "tanh") else None,
            collapsed=share if self.kind == "softmax" else None,
        )
