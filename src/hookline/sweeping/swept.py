"""Cell and Sweep: how an edit in each place changed the metric, as plain data."""

import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from hookline.errors import RecordError
from hookline.messages import counted, few, figure
from hookline.result import Result
from hookline.store.folder import write

WHOLE = ""  # the label of a tensor that is edited as a whole


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of a sweep.

    - `path`: the path of the module;
    - `label`: the part of its tensor, "" for the whole;
    - `values`: the metric of each batch with the edit there.
    """

    path: str
    label: str
    values: tuple[float, ...]

    @property
    def value(self) -> float:
        """The mean over the batches."""
        return statistics.fmean(self.values)


class Sweep(Result[Cell]):
    """The metric with an edit in each place of a model: Cells in the order of the model.

    It prints as a table, or as a heat map if there are parts (`over`). `sweep["encoder"]` is the first Cell of a
    module, `sweep["encoder", 2]` its third, `sweep["encoder", "head=2"]` that of one part, and `sweep[0]` the first of
    all.

    - `baseline`: the metric without an edit, the mean over the batches;
    - `baselines`: the metric without an edit for each batch;
    - `paths`, `labels`: the places, by module and by part;
    - `never_called`: the selected modules that no batch reached;
    - `cells`: each Cell by (path, label);
    - `edit`: the edit, as it prints;
    - `model`: the class of the model;
    - `settings`: the other arguments, as text.
    """

    noun = "sweep"
    entry = "cell"
    columns = ("path", "label", "value", "change")

    def __init__(
        self,
        model: str,
        edit: str,
        baselines: tuple[float, ...],
        paths: Iterable[str],
        labels: Iterable[str],
        never_called: Iterable[str] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.model, self.edit, self.baselines = model, edit, baselines
        self.paths, self.labels, self.never_called = [*paths], [*labels], [*never_called]
        self.settings = dict(settings or {})
        self.cells: dict[tuple[str, str], Cell] = {}

    def _entries(self) -> Sequence[Cell]:
        return [*self.cells.values()]

    def _paths(self) -> Iterable[str]:
        return (*self.paths, *self.never_called)

    def _why_empty(self, path: str) -> str | None:
        if path in self.paths:
            return "was selected but not measured yet"
        return "was selected but never called" if path in self.never_called else None

    def _row(self, entry: Cell, /) -> Mapping[str, Any]:
        return {"path": entry.path, "label": entry.label, "value": entry.value, "change": self.change(entry)}

    @overload
    def __getitem__(self, key: int | str | tuple[str, int] | tuple[str, str]) -> Cell: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Cell, ...]: ...
    def __getitem__(self, key: Any) -> Any:
        match key:
            case (str(path), str(label)):
                own = {cell.label: cell for cell in self._known(path).values()}
                if label not in own:
                    raise RecordError(f"{path!r} has no part {label!r} in the sweep; its parts are {few([*own])}")
                return own[label]
        return super().__getitem__(key)

    @property
    def summary(self) -> str:
        """The model, the edit and the baseline, in a line."""
        kind = "metric" if self.labels == [WHOLE] else "change of the metric"
        left = len(self.paths) * len(self.labels) - len(self)
        rest = f", {counted(left, 'place')} left" if left else ""
        return f"{self.model}: {kind} with {self.edit} in one place at a time; without it {figure(self.baseline)}{rest}"

    @property
    def baseline(self) -> float:
        """The metric without an edit, the mean over the batches."""
        return statistics.fmean(self.baselines)

    def change(self, cell: Cell) -> float:
        """The change of the metric by an edit: its mean minus the baseline."""
        return cell.value - self.baseline

    def top(self, count: int = 10) -> list[Cell]:
        """The places that changed the metric most, largest change first."""
        return sorted(self, key=lambda cell: -magnitude(self.change(cell)))[:count]

    def to_dict(self) -> dict[str, Any]:
        """The sweep as plain data for JSON; numbers that are not finite are text."""
        from hookline.sweeping.sweep_document import to_document

        return to_document(self)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the sweep to a folder, whole or not at all, as `hookline.sweep(..., save=folder)` does.

        A sweep saved there before is replaced. Raises StoreError where the folder holds something else.
        """
        write(folder, self.to_dict(), {}, kind=self.noun)


def magnitude(change: float) -> float:
    """The size of a change. NaN, the metric of a model that an edit broke, is larger than any."""
    return math.inf if math.isnan(change) else abs(change)
