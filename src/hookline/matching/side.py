"""One of two models or runs that are compared, and what its modules are told apart by."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from hookline.matching.fingerprint import fingerprint, is_fingerprint
from hookline.record.record import CallRecord, Run, TensorInfo

Calls: TypeAlias = Mapping[str, list[CallRecord]]


@dataclass(frozen=True, slots=True)
class Side:
    """One of two models or runs, by path: the `classes` of its modules, the `calls` of those that were called, and the
    `modules` themselves where they are at hand."""

    classes: Mapping[str, str]
    calls: Calls
    modules: Mapping[str, Module] = field(default_factory=dict)

    def but(self, taken: Iterable[str]) -> "Side":
        """The same without the calls of some paths."""
        gone = set(taken)
        return replace(self, calls={path: calls for path, calls in self.calls.items() if path not in gone})

    def kind(self, path: str) -> tuple[Any, ...]:
        """What a module is, whatever numbers it holds: its class, and the shapes of its weights, or of what it gave."""
        module, calls = self.modules.get(path), self.calls.get(path)
        if module is not None:
            return self.classes.get(path), *(None if is_lazy(held) else held.shape for held in module.parameters())
        return self.classes.get(path), calls and by_shape(calls)


def side_of(run: Run, modules: Mapping[str, Module] | None = None) -> Side:
    """The side of a run, with the modules that ran."""
    calls: dict[str, list[CallRecord]] = {}
    for call in run.calls:
        calls.setdefault(call.path, []).append(call)
    return Side(run.modules, calls, modules or {})


def by_shape(calls: list[CallRecord]) -> tuple[Any, ...]:
    """What the shapes of its outputs tell of a module."""
    return tuple(info.shape for info in calls[0].outputs), len(calls)


def by_class(calls: list[CallRecord]) -> tuple[Any, ...]:
    """What its class tells of it too."""
    return calls[0].type, *by_shape(calls)


def by_values(calls: list[CallRecord]) -> tuple[Any, ...] | None:
    """What the values that it gave tell of it too; None where they tell nothing."""
    known = [marks_of(info) for info in calls[0].outputs]
    if not known or not all(norm and math.isfinite(norm) for norm, *_ in known):
        return None
    marks = ((f"{norm:.5g}", f"{low:.4g}", f"{high:.4g}", round(mean / norm, 4)) for norm, low, high, mean in known)
    return *by_class(calls), tuple(marks)


def marks_of(info: TensorInfo) -> tuple[float, float, float, float]:
    """Norm, minimum, maximum and mean of a recorded tensor, from whatever was kept of it; zeros where nothing tells."""
    value, stats = info.value, info.stats
    if isinstance(value, Tensor) and value.is_floating_point():
        value = fingerprint(value)
    if is_fingerprint(value):
        total, _, norm, low, high = value["moments"].tolist()
        return norm, low, high, total / max(value["count"], 1)
    return (0.0, 0.0, 0.0, 0.0) if stats is None else (stats.norm, stats.min, stats.max, stats.mean)
