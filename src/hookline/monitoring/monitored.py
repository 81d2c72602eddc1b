"""Monitor: the course of the figures of a training run, as `hookline.monitor` takes them and `hookline.load` finds
them."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from hookline.checking.finding import Finding
from hookline.errors import ArgumentError
from hookline.messages import counted, encodable
from hookline.monitoring.journal import Name, lines_of, read_header
from hookline.monitoring.pyramid import POINTS, Pyramid
from hookline.result import Result
from hookline.store.folder import write
from hookline.store.opening import path_of

if TYPE_CHECKING:
    import pandas

TYPICAL = 32  # samples before a step that say what is usual


class Series:
    """The course of one figure, as far as it is known now.

    - `path`: of a module, or the name of a parameter; `of`: "output", "grad", "weight", "weight_grad", "update" or
      "state.NAME"; `figure`: its name;
    - `steps`: the first and last step of each point [points, 2]; `low`, `mean`, `high`: the smallest, mean and largest
      value of its samples [points].
    """

    __slots__ = ("_monitor", "_place")

    def __init__(self, monitor: "Monitor", place: int) -> None:
        self._monitor, self._place = monitor, place

    @property
    def path(self) -> str:
        """The path of a module, or the name of a parameter."""
        return self._monitor.names[self._place][0]

    @property
    def of(self) -> str:
        """What of it is measured."""
        return self._monitor.names[self._place][1]

    @property
    def figure(self) -> str:
        """The name of the figure."""
        return self._monitor.names[self._place][2]

    @property
    def steps(self) -> Tensor:
        """The first and last step of each point: [points, 2]."""
        return self._monitor.pyramid.of(self._place)[0]

    @property
    def low(self) -> Tensor:
        """The smallest value of each point: [points]."""
        return self._monitor.pyramid.of(self._place)[1]

    @property
    def mean(self) -> Tensor:
        """The mean of each point: [points]."""
        return self._monitor.pyramid.of(self._place)[2]

    @property
    def high(self) -> Tensor:
        """The largest value of each point: [points]."""
        return self._monitor.pyramid.of(self._place)[3]

    @property
    def last(self) -> float:
        """The mean of the last point; NaN without any."""
        mean = self.mean
        return float(mean[-1]) if len(mean) else math.nan

    def __len__(self) -> int:
        return len(self.mean)

    def __bool__(self) -> bool:
        """True: a series without points is one too."""
        return True

    def __repr__(self) -> str:
        return f"<{self.path or '(the model)'} {self.of} {self.figure}: {counted(len(self), 'point')}>"


@dataclass(frozen=True, slots=True)
class Shift:
    """By how much a figure differs at a step from what is usual before it.

    - `value`: at the step; `typical`: the median of the samples before; `factor`: their ratio, from 1 up.
    """

    path: str
    of: str
    figure: str
    step: int
    value: float
    typical: float

    @property
    def factor(self) -> float:
        """How many times larger or smaller it is; infinite for one that is not finite, or was 0. Of a share of zeros,
        which is often 0, a hundredth is the least that counts."""
        if not math.isfinite(self.value):
            return math.inf
        if self.value == self.typical:
            return 1.0
        least = 0.01 if self.figure == "zeros" else 0.0
        small, large = sorted((abs(self.value) + least, abs(self.typical) + least))
        return large / small if small else math.inf


@dataclass(frozen=True, slots=True)
class Departure:
    """The first step at which a figure of two runs differs: its value in `one` and in the `other`."""

    path: str
    of: str
    figure: str
    step: int
    one: float
    other: float


class Monitor(Result[Series]):
    """The course of the figures of every layer over a training run.

    - `monitor[path]`: the first series of a module or parameter; `monitor.series(path, "output", "rms")`: one of them;
      iteration, `len` and `monitor[i]` go over all series;
    - `alerts`: the last 1000 findings of alerts, in the order of their steps;
    - `around(step)`: which figures changed most at a step;
    - `to_pandas()`: a row for each point of each series.
    """

    noun: ClassVar[str] = "monitor"
    entry: ClassVar[str] = "series"
    columns: ClassVar[Sequence[str]] = ("path", "of", "figure", "step", "last_step", "low", "mean", "high")

    def __init__(self, model: str, names: Sequence[Name] = (), pyramid: Pyramid | None = None) -> None:
        self.model, self.names = model, [*names]
        self.pyramid = Pyramid(len(self.names)) if pyramid is None else pyramid
        self.alerts: list[Finding] = []
        self.folder: os.PathLike[str] | None = None
        self._made: list[Series] = []
        self.samples = 0

    # Samples

    def take(self, step: int, names: Sequence[Name], values: Tensor) -> None:
        """Add the sample of a step; `names` begin with those of the sample before."""
        self.names = [*names]
        self.pyramid.grow(len(self.names))
        self.pyramid.add(step, values)
        self.samples += 1

    # Reading

    @property
    def last_step(self) -> int | None:
        """The last step that was sampled; None before the first."""
        return int(self.pyramid.steps[self.pyramid.count - 1, 1]) if self.pyramid.count else None

    @property
    def paths(self) -> list[str]:
        """The paths of modules and the names of parameters that have series."""
        return [*dict.fromkeys(path for path, _, _ in self.names)]

    def series(self, path: str, of: str = "output", figure: str = "rms") -> Series:
        """One series. Raises RecordError with the nearest paths for an unknown path, ArgumentError for what is not
        measured of a known one."""
        own = self._known(path)
        for each in own.values():
            if (each.of, each.figure) == (of, figure):
                return each
        there = ", ".join(f"{each.of} {each.figure}" for each in own.values())
        raise ArgumentError(f"{path!r} has no series of the {figure} of its {of}; it has {there}")

    def around(self, step: int, *, most: int = 20) -> list[Shift]:
        """Which figures changed most at the sample of a step, or at the first one after it: those of the largest factor
        over the median of the samples before. Where a spike began stands first.

        They are read from the folder, where there is one; else from memory, which joins samples of long runs.
        """
        rows = [*self._rows_until(step)]
        if not rows or rows[-1][0] < step:
            raise ArgumentError(f"no sample at step {step} or after; the last one is of step {self.last_step}")
        at, now = rows[-1]
        before = [values for _, values in rows[:-1]][-TYPICAL:]
        if not before:
            raise ArgumentError(f"there is no sample before step {at} to compare it with")
        width = len(now)
        filled = [torch.cat([values, torch.full((width - len(values),), math.nan)]) for values in before]
        typical = torch.stack(filled).nanmedian(0).values
        shifts = [
            Shift(*name, at, float(value), float(usual))
            for name, value, usual in zip(self.names, now, typical, strict=False)
            if not math.isnan(usual) and not (math.isnan(value) and name[2] != "rms")
        ]
        return sorted(shifts, key=lambda shift: -shift.factor)[:most]

    def departures(self, other: "Monitor", *, rtol: float = 1e-3) -> list[Departure]:
        """Where two runs depart from each other: of each series that both have, the first step at which they differ by
        more than `rtol`; the earliest first. Steps that only one of them has do not count.

        >>> import torch, hookline
        >>> runs = []
        >>> for scale in (1.0, 2.0):
        ...     model = torch.nn.Sequential(torch.nn.Identity())
        ...     with hookline.monitor(model, of="output", figures="rms") as run:
        ...         for step in range(3):
        ...             _ = model(torch.ones(2) * (scale if step == 2 else 1.0))
        ...             run.step()
        ...     runs.append(run)
        >>> [(each.path, each.step, each.one, each.other) for each in runs[0].departures(runs[1])]
        [('', 2, 1.0, 2.0), ('0', 2, 1.0, 2.0)]
        """
        ours, theirs = dict(self._every_row()), dict(other._every_row())
        both = sorted({*ours} & {*theirs})
        places = {name: place for place, name in enumerate(other.names)}
        pairs = [(place, places[name]) for place, name in enumerate(self.names) if name in places]
        found: dict[int, Departure] = {}
        for step in both:
            one, two = ours[step], theirs[step]
            for mine, its in pairs:
                if mine in found or mine >= len(one) or its >= len(two):
                    continue
                a, b = float(one[mine]), float(two[its])
                if not (math.isclose(a, b, rel_tol=rtol) or (math.isnan(a) and math.isnan(b))):
                    found[mine] = Departure(*self.names[mine], step, a, b)
        return sorted(found.values(), key=lambda departure: departure.step)

    def _every_row(self) -> Iterator[tuple[int, Tensor]]:
        """All samples: step and values."""
        return self._rows_until(2**62)

    def _rows_until(self, step: int) -> Iterator[tuple[int, Tensor]]:
        """The samples up to the first one at a step or after it."""
        if self.folder is not None:
            for line, _ in lines_of(path_of(self.folder)):
                if "values" in line:
                    yield line["step"], numbers(line["values"])
                    if line["step"] >= step:
                        return
            return
        pyramid = self.pyramid
        for place in range(pyramid.count):
            yield int(pyramid.steps[place, 1]), pyramid.mean[place]
            if int(pyramid.steps[place, 1]) >= step:
                return

    # Result

    def _entries(self) -> Sequence[Series]:
        self._made += [Series(self, place) for place in range(len(self._made), len(self.names))]
        return self._made[: len(self.names)]

    def _of(self, path: str) -> Mapping[int, Series]:
        return dict(enumerate(each for each in self._entries() if each.path == path))

    def _paths(self) -> Iterable[str]:
        return self.paths

    def __len__(self) -> int:
        return len(self.names)

    def __bool__(self) -> bool:
        return bool(self.samples)

    def _row(self, entry: Series, /) -> Mapping[str, Any]:
        first, last = entry.steps[-1].tolist() if len(entry) else (None, None)
        low, mean, high = (float(each[-1]) if len(entry) else math.nan for each in (entry.low, entry.mean, entry.high))
        of = {"path": entry.path, "of": entry.of, "figure": entry.figure}
        return {**of, "step": first, "last_step": last, "low": low, "mean": mean, "high": high}

    @property
    def summary(self) -> str:
        """What was measured so far, in a line."""
        last = self.last_step
        steps = "no step yet" if last is None else f"{counted(self.samples, 'sample')} up to step {last}"
        alerts = f", {counted(len(self.alerts), 'alert')}" if self.alerts else ""
        return f"{self.model}: {len(self.names):,} series of {counted(len(self.paths), 'path')}, {steps}{alerts}"

    def to_pandas(self) -> "pandas.DataFrame":
        """A data frame with a row for each point of each series.

        Raises ImportError if pandas is missing: `pip install 'hookline[data]'`.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas() needs pandas: pip install 'hookline[data]'") from error
        frames = [
            pandas.DataFrame(
                {
                    "path": encodable(each.path),
                    "of": each.of,
                    "figure": each.figure,
                    "step": each.steps[:, 0].tolist(),
                    "last_step": each.steps[:, 1].tolist(),
                    "low": each.low.tolist(),
                    "mean": each.mean.tolist(),
                    "high": each.high.tolist(),
                }
            )
            for each in self._entries()
            if len(each)
        ]
        return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame(columns=[*self.columns])

    def to_dict(self) -> dict[str, Any]:
        """Every series and alert as plain data; numbers that are not finite are None."""
        return {
            "model": self.model,
            "samples": self.samples,
            "series": [
                {
                    "path": each.path,
                    "of": each.of,
                    "figure": each.figure,
                    "steps": each.steps.tolist(),
                    **{name: plain(getattr(each, name)) for name in ("low", "mean", "high")},
                }
                for each in self._entries()
            ],
            "alerts": [alert.to_dict() for alert in self.alerts],
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the series to a folder, whole or not at all; one saved there before is replaced.

        Raises StoreError where the folder holds something else or cannot be written.
        """
        pyramid = self.pyramid
        used = slice(0, pyramid.count)
        document = {
            "model": self.model,
            "samples": self.samples,
            "names": [[*name] for name in self.names],
            "points": pyramid.points,
            "per_point": pyramid.per_point,
            "in_last": pyramid.in_last,
            "alerts": [alert.to_dict() for alert in self.alerts],
        }
        tensors = {
            "steps": pyramid.steps[used],
            "low": pyramid.low[used],
            "mean": pyramid.mean[used],
            "high": pyramid.high[used],
        }
        write(folder, document, {name: tensor.contiguous() for name, tensor in tensors.items()}, kind="monitor")


def numbers(values: Sequence[float | None]) -> Tensor:
    """Values of a line of a journal; None is NaN."""
    return torch.tensor([math.nan if value is None else value for value in values])


def plain(values: Tensor) -> list[float | None]:
    """Numbers for JSON."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def finding_of(told: Mapping[str, Any]) -> Finding:
    """A finding from what `to_dict` made of it."""
    names = ("path", "message", "call", "evidence", "rule", "severity", "advice")
    after = tuple(map(finding_of, told["consequences"]))
    return Finding(**{name: told[name] for name in names}, consequences=after)


def decode(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Monitor:
    """The monitor of a saved folder."""
    names = [(path, of, figure) for path, of, figure in document["names"]]
    pyramid = Pyramid(0, int(document["points"]))
    pyramid.grow(len(names))
    pyramid.count, pyramid.per_point = len(tensors["steps"]), int(document["per_point"])
    pyramid.in_last = int(document["in_last"])
    for name in ("steps", "low", "mean", "high"):
        getattr(pyramid, name)[: pyramid.count] = tensors[name]
    found = Monitor(document["model"], names, pyramid)
    found.samples = int(document["samples"])
    found.alerts = [finding_of(told) for told in document["alerts"]]
    return found


def read_journal(folder: str | os.PathLike[str], *, until: float = math.inf, points: int = POINTS) -> Monitor:
    """The monitor of a folder that a run wrote, up to a step; StoreError where it holds none, or is damaged."""
    place = path_of(folder)
    header = read_header(place)
    found = Monitor(header["model"], (), Pyramid(0, points))
    found.folder = place
    for line, names in lines_of(place):
        if "values" in line and line["step"] < until:
            found.take(int(line["step"]), names, numbers(line["values"]))
        elif "alert" in line and line["alert"]["evidence"]["step"] < until:
            found.alerts.append(finding_of(line["alert"]))
    return found
