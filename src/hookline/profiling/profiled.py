"""Cost and Profile: what calls cost, as plain data."""

import math
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hookline.errors import RecordError
from hookline.messages import engineering, milliseconds
from hookline.profiling.timeline import Span
from hookline.result import Result
from hookline.store.folder import write


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one call, or of several together. A figure includes the calls inside; with `_self` it does not.

    - `path`, `type`: the module and its class;
    - `index`: which call of the module, None for several;
    - `parent`: the number of the call around it; for a recomputed call that of the original;
    - `calls`: the number of calls;
    - `recompute`: whether a backward pass made the call, under activation checkpointing;
    - `forward`, `backward`: seconds, all from the median step of the repeats, so that they add up; NaN if nothing was
      timed;
    - `forward_spread`, `backward_spread`: half the interquartile range over the repeats, in seconds;
    - `flops`, `backward_flops`: floating-point operations of matrix products, convolutions and attention, as
      `torch.utils.flop_counter` counts them (a multiply-add is two), with our own formulas for fused operations that it
      does not know and for the backward of convolutions; NaN if they could not be counted;
    - `uncounted`: the number of operations, forward and backward, without a formula, whose FLOPs are missing above;
    - `kept`: bytes saved for backward, without parameters and buffers, each storage once, at the call that saved it
      first;
    - `parameters`, `parameter_bytes`: the number of elements of the parameters, and their bytes;
    - `moved`: the least bytes that the module itself must read and write: inputs, output and its own parameters.
    """

    path: str
    index: int | None = None
    type: str = ""
    parent: int | None = None
    calls: int = 1
    recompute: bool = False
    forward: float = 0.0
    forward_self: float = 0.0
    forward_spread: float = 0.0
    backward: float = 0.0
    backward_self: float = 0.0
    backward_spread: float = 0.0
    flops: float = 0
    flops_self: float = 0
    backward_flops: float = 0
    backward_flops_self: float = 0
    uncounted: int = 0
    uncounted_self: int = 0
    kept: int = 0
    kept_self: int = 0
    parameters: int = 0
    parameters_self: int = 0
    parameter_bytes: int = 0
    parameter_bytes_self: int = 0
    moved: int = 0

    @property
    def seconds(self) -> float:
        """The seconds of forward and backward together."""
        return self.forward + self.backward

    @property
    def seconds_self(self) -> float:
        """The seconds of forward and backward together, without the calls inside."""
        return self.forward_self + self.backward_self

    @property
    def intensity(self) -> float:
        """Forward FLOPs of the module itself per byte moved; NaN without any."""
        return self.flops_self / self.moved if self.moved and self.flops_self else math.nan


SELVES = ("forward", "backward", "flops", "backward_flops", "uncounted", "kept")  # figures that add up along the tree
SIZES = ("parameters", "parameter_bytes")  # figures that count once for each module


class Profile(Result[Cost]):
    """The costs of a model: a Cost for each call, in order. It prints as a tree with the costs of each module.

    `profile["encoder"]` is the Cost of all calls of a module together, `profile["encoder", 2]` that of its call 2, and
    `profile[0]` that of the first call of all.

    - `total`: the Cost of everything together;
    - `by_path()`, `by_class()`: a Cost for each module, or each class;
    - `plain`: seconds of forward and of backward in a step without our hooks, the median over the repeats;
    - `added`: how much longer a profiled step took, as a share (0.05 is 5 %);
    - `taken_off`: seconds subtracted for each call, the measured cost of profiling an empty module;
    - `peak`: peak memory of the device during a plain step, in bytes; None if the device does not track it;
    - `uncounted`: the operations without a formula for FLOPs and their modules, or why FLOPs are unknown (NaN); "" if
      all are counted;
    - `steps`: seconds of each profiled step;
    - `busy`: the interquartile range of `steps`, as a share of the median; above a quarter the machine was busy, and
      another run will show other figures;
    - `model`, `device`, `repeat`: the class of the model, the device, and the number of repeats;
    - `backward`: whether there was a backward pass.
    """

    noun = "profile"
    entry = "call"
    columns = (*(each.name for each in fields(Cost)), "intensity")

    def __init__(
        self,
        costs: Iterable[Cost],
        *,
        model: str,
        device: str,
        repeat: int,
        backward: bool,
        plain: tuple[float, float] = (math.nan, math.nan),
        added: float = math.nan,
        taken_off: float = 0.0,
        peak: int | None = None,
        uncounted: str = "",
        steps: Sequence[float] = (),
        spans: Sequence[Span] = (),
    ) -> None:
        self.costs = tuple(costs)
        self.model, self.device, self.repeat, self.backward = model, device, repeat, backward
        self.plain, self.added, self.taken_off, self.peak = plain, added, taken_off, peak
        self.uncounted = uncounted
        self.steps = tuple(steps)
        self.spans = tuple(spans)

    def _entries(self) -> Sequence[Cost]:
        return self.costs

    def _of(self, path: str) -> Mapping[int, Cost]:
        own = (cost for cost in self.costs if cost.path == path and not cost.recompute)
        return {place if cost.index is None else cost.index: cost for place, cost in enumerate(own)}

    def _whole(self, path: str, own: Mapping[int, Cost]) -> Cost:
        return self._group([cost for cost in self.costs if cost.path == path], "path")

    def _row(self, entry: Cost, /) -> Mapping[str, Any]:
        return {name: getattr(entry, name) for name in self.columns}

    @property
    def paths(self) -> list[str]:
        """The paths of the called modules, in order."""
        return [*dict.fromkeys(cost.path for cost in self)]

    @property
    def total(self) -> Cost:
        """The Cost of all outermost calls together."""
        outermost = [cost for cost in self if cost.parent is None and not cost.recompute]
        together = _together(outermost) if outermost else Cost(path="", calls=0)
        return replace(together, path="", type=self.model)

    @property
    def busy(self) -> float:
        """The interquartile range of the times of the steps, as a share of the median; 0 for fewer than two."""
        return 2 * spread(self.steps) / median(self.steps) if len(self.steps) > 1 else 0.0

    def by_path(self) -> list[Cost]:
        """A Cost for each module, in order, with all of its calls. Recomputed calls count as backward."""
        return [self._group(own, "path") for own in _grouped(self, "path")]

    def by_class(self) -> list[Cost]:
        """A Cost for each class, the most expensive first. A call inside another of the same class counts once."""
        rows = [replace(self._group(own, "type"), path="") for own in _grouped(self, "type")]
        return sorted(rows, key=lambda row: -row.seconds_self if self.repeat else -row.flops_self)

    def _group(self, own: list[Cost], by: str) -> Cost:
        """Calls of one module or class as one; a call inside another of them counts once."""
        outer = [c for c in own if not any(getattr(above, by) == getattr(c, by) for above in self.around(c))]
        row, whole = _together(own), _together(outer)
        totals = {name: getattr(whole, name) for name in (*SELVES, *SIZES)}
        return replace(row, **totals)

    def around(self, cost: Cost) -> Iterator[Cost]:
        """The calls around a call, the innermost first."""
        while cost.parent is not None:
            cost = self.costs[cost.parent]
            yield cost

    @property
    def summary(self) -> str:
        """The model and its costs in two lines, and a third if not all FLOPs are known."""
        lines = [self.model + self._timed(), self._counted()]
        return "\n".join((*lines, self.why_uncounted) if self.uncounted else lines)

    def _timed(self) -> str:
        if not self.repeat:
            return ""
        forward, backward = map(milliseconds, self.plain)
        times = f"{forward} ms forward" + (f" + {backward} backward" if self.backward else "")
        return f": {times} plain, median of {self.repeat} on {self.device}; profiling added {self.added:.0%}"

    def _counted(self) -> str:
        total = self.total
        known = not math.isnan(total.flops)
        parts = [f"{engineering(total.flops)}FLOP" if known else "FLOPs unknown"]
        if self.backward:
            parts[0] += f" + {engineering(total.backward_flops)}FLOP backward" if known else ""
            parts.append(f"{engineering(total.kept)}B saved for backward")
        parts.append(f"{engineering(total.parameters).rstrip()} parameters ({engineering(total.parameter_bytes)}B)")
        if self.peak is not None:
            parts.append(f"peak memory {engineering(self.peak)}B")
        return ", ".join(parts)

    @property
    def why_uncounted(self) -> str:
        """Why FLOPs are unknown, or which are not counted, in a line; "" if all are counted."""
        if not self.uncounted:
            return ""
        if math.isnan(self.total.flops):
            return f"PyTorch's FLOP counter failed in this model: {self.uncounted}"
        return f"not counted in the FLOPs: {self.uncounted}"

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain data for JSON; numbers that are not finite are text."""
        from hookline.profiling.profile_document import to_document

        return to_document(self)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the profile to a folder, whole or not at all; a profile saved there before is replaced.

        Raises StoreError where the folder holds something else.
        """
        write(folder, self.to_dict(), {}, kind=self.noun)

    def perfetto(self, file: str | os.PathLike[str]) -> Path:
        """Write the last repeat, forward and backward, as a trace for ui.perfetto.dev and chrome://tracing, and return
        its path. Raises RecordError if nothing was timed."""
        if not self.spans:
            raise RecordError("nothing was timed, so there is no trace: profile the model itself, not its meta copy")
        return self._write("perfetto", file)

    def collapsed(self, file: str | os.PathLike[str]) -> Path:
        """Write collapsed stacks for flame graph tools, with the self time of each module in microseconds."""
        return self._write("collapsed", file)


def _grouped(costs: Iterable[Cost], by: str) -> list[list[Cost]]:
    """The costs grouped by path or type, in the order of the first of each group."""
    found: dict[str, list[Cost]] = {}
    for cost in costs:
        found.setdefault(getattr(cost, by), []).append(cost)
    return [*found.values()]


def _together(costs: Sequence[Cost]) -> Cost:
    """Several calls as one. The parameters of each module count once, and recomputed calls count as backward."""
    once, again = ([cost for cost in costs if cost.recompute is repeated] for repeated in (False, True))
    sums: dict[str, Any] = {"calls": len(once), "moved": sum(cost.moved for cost in once)}
    for name in SELVES:
        for key in (name, f"{name}_self"):
            sums[key] = sum(getattr(cost, key) for cost in once)
    for name, instead in (("forward", "backward"), ("flops", "backward_flops")):
        for end in ("", "_self"):
            sums[instead + end] += sum(getattr(cost, name + end) + getattr(cost, instead + end) for cost in again)
    for name in ("forward_spread", "backward_spread"):
        sums[name] = math.hypot(*(getattr(cost, name) for cost in costs))
    by_path = {cost.path: cost for cost in costs}
    for name in (*SIZES, *(f"{size}_self" for size in SIZES)):
        sums[name] = sum(getattr(cost, name) for cost in by_path.values())
    return replace(costs[0], index=None, parent=None, recompute=False, **sums)


def median(values: Sequence[float]) -> float:
    """The median; NaN without values."""
    return statistics.median(values) if values else math.nan


def spread(values: Sequence[float]) -> float:
    """Half the interquartile range; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2
