"""One side of a comparison: a model or run, and the tokens by which its modules are matched."""

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
    """One of two models or runs, by path.

    - `classes`: the class of each module;
    - `calls`: the calls of each module that was called;
    - `modules`: the modules themselves, if there is a model.
    """

    classes: Mapping[str, str]
    calls: Calls
    modules: Mapping[str, Module] = field(default_factory=dict)

    def but(self, taken: Iterable[str]) -> "Side":
        """The same without the calls of some paths."""
        gone = set(taken)
        return replace(self, calls={path: calls for path, calls in self.calls.items() if path not in gone})

    def kind(self, path: str) -> tuple[Any, ...]:
        """The kind of a module without its values: its class, and the shapes of its weights, or else of its output."""
        module, calls = self.modules.get(path), self.calls.get(path)
        if module is not None:
            return self.classes.get(path), *(None if is_lazy(held) else held.shape for held in module.parameters())
        return self.classes.get(path), calls and by_shape(calls)


def side_of(run: Run, modules: Mapping[str, Module] | None = None) -> Side:
    """The side of a run."""
    calls: dict[str, list[CallRecord]] = {}
    for call in run.calls:
        calls.setdefault(call.path, []).append(call)
    return Side(run.modules, calls, modules or {})


def by_shape(calls: list[CallRecord]) -> tuple[Any, ...]:
    """A token of a module: the shapes of its outputs and its number of calls."""
    return tuple(info.shape for info in calls[0].outputs), len(calls)


def by_class(calls: list[CallRecord]) -> tuple[Any, ...]:
    """The same with its class."""
    return calls[0].type, *by_shape(calls)


def by_values(calls: list[CallRecord]) -> tuple[Any, ...] | None:
    """The same with figures of its output values; None if there are none, or they are zero or not finite."""
    known = [marks_of(info) for info in calls[0].outputs]
    if not known or not all(norm and math.isfinite(norm) for norm, *_ in known):
        return None
    marks = ((f"{norm:.5g}", f"{low:.4g}", f"{high:.4g}", round(mean / norm, 4)) for norm, low, high, mean in known)
    return *by_class(calls), tuple(marks)


def marks_of(info: TensorInfo) -> tuple[float, float, float, float]:
    """Norm, minimum, maximum and mean of a recorded tensor, from whatever was kept of it; zeros if nothing was."""
    value, stats = info.value, info.stats
    if isinstance(value, Tensor) and value.is_floating_point():
        value = fingerprint(value)
    if is_fingerprint(value):
        total, _, norm, low, high = value["moments"].tolist()
        return norm, low, high, total / max(value["count"], 1)
    return (0.0, 0.0, 0.0, 0.0) if stats is None else (stats.norm, stats.min, stats.max, stats.mean)
