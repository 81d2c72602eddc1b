"""Cost, Profile: what calls cost, as plain data."""

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
    """What one call costs, or several together. Each figure is once of itself alone (`_self`) and once with the calls
    inside it.

    - `path`, `index` (None for several), `type`, `parent` (the number of the call around it), `calls` (how many);
      `recompute`: whether a backward pass made the call, to get back what checkpointing let go; then `parent`
      is that of the call that it repeats;
    - `forward`, `backward`: seconds, all of one step, the median one of the repeats, so that they add up;
      `forward_spread`, `backward_spread`: half of the range in which the middle half of the repeats lies. NaN where
      nothing was timed;
    - `flops`, `backward_flops`: floating-point operations of matrix products, convolutions and attention, as
      `torch.utils.flop_counter` counts them (a multiply-add is two), and by formulas of ours for fused operations that
      it does not know and for the backward of convolutions; NaN where they could not be counted;
    - `uncounted`: how many operations, forward and backward, have no formula, so that their FLOPs are missing above;
    - `kept`: bytes that the graph keeps for the backward pass, parameters and buffers left out, each memory once, with
      the call that kept it first;
    - `parameters`: how many numbers the parameters hold; `parameter_bytes`: their bytes;
    - `moved`: bytes that the module itself must read and write at the least: inputs, output, and its own parameters.
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
        """Forward and backward together."""
        return self.forward + self.backward

    @property
    def seconds_self(self) -> float:
        """Forward and backward together, without the calls inside."""
        return self.forward_self + self.backward_self

    @property
    def intensity(self) -> float:
        """Forward FLOPs of the module itself for each byte moved; NaN where there are none."""
        return self.flops_self / self.moved if self.moved and self.flops_self else math.nan


SELVES = ("forward", "backward", "flops", "backward_flops", "uncounted", "kept")  # what adds up along the tree
SIZES = ("parameters", "parameter_bytes")  # of which each module's count once


class Profile(Result[Cost]):
    """What a model costs: a Cost for each call, in order. It prints as a tree with the costs of each module.

    `profile["encoder"]` is the Cost of all of a module's calls together, `profile["encoder", 2]` that of its call 2,
    `profile[0]` that of the first call of all.

    - `total`: everything together; `by_path()`, `by_class()`: the calls of each module, of each class;
    - `plain`: seconds of forward and backward of a step without any of our hooks, the median over the repeats; `added`:
      how much longer a profiled step took, as a share (0.05: 5 %); `taken_off`: seconds that were taken off for each
      call, what profiling an empty module was measured to cost;
    - `peak`: the most bytes that the device held at once during a plain step; None where it does not tell;
    - `uncounted`: which operations have no formula for FLOPs, and in which modules; or why no FLOPs are known (then
      these are NaN). Nothing where all are counted;
    - `steps`: seconds of each profiled step; `busy`: how wide the middle half of these lies, as a share of the median.
      Where it is more than a quarter the machine was busy, and figures of another run will differ;
    - `model`, `device`, `repeat`, `backward` (whether there was one).
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
        """The modules that were called, in order."""
        return [*dict.fromkeys(cost.path for cost in self)]

    @property
    def total(self) -> Cost:
        """The outermost calls together."""
        outermost = [cost for cost in self if cost.parent is None and not cost.recompute]
        together = _together(outermost) if outermost else Cost(path="", calls=0)
        return replace(together, path="", type=self.model)

    @property
    def busy(self) -> float:
        """How wide the middle half of the steps' times lies, as a share of the median; 0 of fewer than two."""
        return 2 * spread(self.steps) / median(self.steps) if len(self.steps) > 1 else 0.0

    def by_path(self) -> list[Cost]:
        """A Cost for each module, in order, with all of its calls. What a recomputation takes counts as backward."""
        return [self._group(own, "path") for own in _grouped(self, "path")]

    def by_class(self) -> list[Cost]:
        """A Cost for each class, the most expensive first; calls inside another of the same class are in that."""
        rows = [replace(self._group(own, "type"), path="") for own in _grouped(self, "type")]
        return sorted(rows, key=lambda row: -row.seconds_self if self.repeat else -row.flops_self)

    def _group(self, own: list[Cost], by: str) -> Cost:
        """Calls of one module or class as one; those inside another of them are in that."""
        outer = [c for c in own if not any(getattr(above, by) == getattr(c, by) for above in self.around(c))]
        row, whole = _together(own), _together(outer)
        totals = {name: getattr(whole, name) for name in (*SELVES, *SIZES)}
        return replace(row, **totals)

    def around(self, cost: Cost) -> Iterator[Cost]:
        """The calls that a call ran inside, innermost first."""
        while cost.parent is not None:
            cost = self.costs[cost.parent]
            yield cost

    @property
    def summary(self) -> str:
        """What was profiled and what it costs, in two lines, and a third where not all FLOPs are known."""
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
        told = [f"{engineering(total.flops)}FLOP" if known else "FLOPs not known"]
        if self.backward:
            told[0] += f" + {engineering(total.backward_flops)}FLOP backward" if known else ""
            told.append(f"{engineering(total.kept)}B kept for {'it' if known else 'the backward'}")
        told.append(f"{engineering(total.parameters).rstrip()} parameters of {engineering(total.parameter_bytes)}B")
        if self.peak is not None:
            told.append(f"peak memory {engineering(self.peak)}B")
        return ", ".join(told)

    @property
    def why_uncounted(self) -> str:
        """Why there are no FLOPs, or what is not among them, in a line; "" where all are counted."""
        if not self.uncounted:
            return ""
        if math.isnan(self.total.flops):
            return f"PyTorch's counter of FLOPs failed in this model: {self.uncounted}"
        return f"not among the FLOPs: {self.uncounted}"

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data that JSON can hold: numbers that are not finite are text."""
        from hookline.profiling.profile_document import to_document

        return to_document(self)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the profile to a folder, whole or not at all; a profile saved there before is replaced.

        Raises StoreError where the folder holds something else.
        """
        write(folder, self.to_dict(), {}, kind=self.noun)

    def perfetto(self, file: str | os.PathLike[str]) -> Path:
        """Write the last repeat as a trace that ui.perfetto.dev and chrome://tracing show, forward and backward, and
        return its path. RecordError where nothing was timed."""
        if not self.spans:
            raise RecordError("nothing was timed, so there is no trace: profile the model itself, not its meta copy")
        return self._write("perfetto", file)

    def collapsed(self, file: str | os.PathLike[str]) -> Path:
        """Write collapsed stacks, microseconds of each module by itself: what flame graph tools take."""
        return self._write("collapsed", file)


def _grouped(costs: Iterable[Cost], by: str) -> list[list[Cost]]:
    """The costs that have the same path, or the same type, in the order of the first of them."""
    found: dict[str, list[Cost]] = {}
    for cost in costs:
        found.setdefault(getattr(cost, by), []).append(cost)
    return [*found.values()]


def _together(costs: Sequence[Cost]) -> Cost:
    """Several calls as one; the parameters of each module count once. What recomputed ones take forward is backward."""
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
    """The median; NaN of nothing."""
    return statistics.median(values) if values else math.nan


def spread(values: Sequence[float]) -> float:
    """Half of the range in which the middle half of the values lies; 0 of fewer than two."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2
