"""sweep: one edit at a time over many places, and what each does to a metric."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from hookline.edits.digest import fingerprint
from hookline.edits.edit import Edit, as_edit
from hookline.edits.steps import Change, edit_calls, without_fast_path
from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import make_hooks
from hookline.errors import EditError, StoreError
from hookline.model.paths import PathTable
from hookline.model.restored import restored
from hookline.model.select import Where, select
from hookline.store.folder import read, write
from hookline.store.members import damage_told, expect_object, expected, listed, member, number_text, one_of
from hookline.store.members import shown as described
from hookline.store.opening import path_of

if TYPE_CHECKING:
    import os

    import pandas

Metric: TypeAlias = Callable[[Any, Any], Any]
WHOLE = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of a sweep: the module's path, the label of the part of its tensor ("" for the whole), and the metric
    of each batch with the edit there."""

    path: str
    label: str
    values: tuple[float, ...]

    @property
    def value(self) -> float:
        """The mean over the batches."""
        return statistics.fmean(self.values)


class Sweep(Sequence[Cell]):
    """What each place of a sweep did to the metric: its Cells in the model's order. It prints as a table, or as a heat
    map where there are parts (`over`), and shows as one in a notebook.

    - `baseline`: the metric without an edit, the mean over the batches; `baselines`: of each batch;
    - `paths`, `labels`: the places, by module and by part; `never_called`: the selected modules that no batch reached;
    - `cells`: each Cell by (path, label); `edit`: the edit, as it prints; `model`: the class of the model.
    """

    def __init__(
        self,
        model: str,
        edit: str,
        baselines: tuple[float, ...],
        paths: list[str],
        labels: list[str],
        called: Collection[str],
    ) -> None:
        self.model, self.edit, self.baselines, self.labels = model, edit, baselines, labels
        self.paths = [path for path in paths if path in called]
        self.never_called = [path for path in paths if path not in called]
        self.cells: dict[tuple[str, str], Cell] = {}

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[Cell]:
        return iter(self.cells.values())

    def __getitem__(self, key: Any) -> Any:
        """A Cell by its number, by its path, or by (path, label)."""
        if isinstance(key, int | slice):
            return [*self][key]
        wanted = key if isinstance(key, tuple) else (key, self.labels[0])
        if wanted not in self.cells:
            raise EditError(f"the sweep has no {wanted!r}; its paths are {self.paths[:5]}..., its labels {self.labels}")
        return self.cells[wanted]

    @property
    def baseline(self) -> float:
        """The metric without an edit: the mean over the batches."""
        return statistics.fmean(self.baselines)

    def change(self, cell: Cell) -> float:
        """By how much an edit changed the metric: its mean less the baseline."""
        return cell.value - self.baseline

    def top(self, count: int = 10) -> list[Cell]:
        """The places that changed the metric most, the most first."""
        return sorted(self, key=lambda cell: -magnitude(self.change(cell)))[:count]

    def to_pandas(self) -> pandas.DataFrame:
        """A table with a row for each place: path, label, value, change. Needs pandas: `pip install hookline[data]`."""
        try:
            import pandas
        except ImportError as error:
            raise EditError("to_pandas() needs pandas: pip install 'hookline[data]'") from error
        rows = [(cell.path, cell.label, cell.value, self.change(cell)) for cell in self]
        return pandas.DataFrame(rows, columns=["path", "label", "value", "change"])

    def __repr__(self) -> str:
        from hookline.report.heat import sweep_table  # rich costs more to import than the rest of hookline
        from hookline.report.text import render

        return render(sweep_table(self))

    def __rich__(self) -> Any:
        from hookline.report.heat import sweep_table

        return sweep_table(self)

    def _repr_html_(self) -> str:
        from hookline.report.heat import sweep_html

        return sweep_html(self)


def magnitude(change: float) -> float:
    """How large a change is; NaN, which an edit that breaks the model makes of a metric, is larger than any."""
    return math.inf if math.isnan(change) else abs(change)


def sweep(
    model: Module,
    where: Where,
    edit: Change,
    metric: Metric,
    batches: Iterable[Any],
    *,
    part: Literal["input", "output"] = "output",
    key: Any = None,
    over: Mapping[str, Any] | Collection[Any] | None = None,
    call: Callable[[Module, Any], Any] | None = None,
    save: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Sweep:
    """Put one edit on each selected module in turn, and measure what it does: ablation, activation patching.

    `edit` is what `hookline.edit` takes for `part`, and `key` is as there; `edits.patch(run)` patches each module's own
    values. `metric(output, batch)` gives a number for each batch. A batch is what the model is called with: a tensor,
    a tuple or list of arguments, or a dict of named ones; for anything else `call(model, batch)` says how. `over` is
    for a second axis: the `at=` of `hookline.edit`, several of them by label, or in a list, such as
    `[edits.at(position=i) for i in range(8)]`.

    The model runs without gradients, in the mode that it is in, from the same random state and buffers in each place;
    both are afterwards what they were. The batches have to be the same each time that they are gone through. `save`
    names a folder that holds what was measured after each place: a sweep that was interrupted goes on from there, where
    model, edit, places, metric and baseline are the same (of functions their code and what they enclose; not what they
    find in their module by name). Progress is shown on a terminal.

    Raises EditError for what is no edit, from an edit that does not fit, for a metric that gives no number, and for
    batches that are others the next time, as of a loader that shuffles;
    StoreError where the folder holds something else.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
    >>> batches = [torch.ones(1, 2), torch.zeros(1, 2)]
    >>> swept = hookline.sweep(model, "*", hookline.edits.zero(), lambda output, batch: output.mean(), batches)
    >>> swept["2"].value, swept.paths
    (0.0, ['0', '1', '2'])
    """
    change = as_edit(edit)
    if part not in ("input", "output"):
        raise EditError(f"part={part!r} cannot be swept; it is 'input' or 'output'")
    selection = select(model, where)
    parts = by_label(over)
    held = batches if not isinstance(batches, Iterator) else [*batches]

    prints: list[str] = []

    def measure() -> tuple[float, ...]:
        values = []
        with torch.no_grad(), restored(model, ()):
            for place, batch in enumerate(held):
                refuse_other_batch(prints, place, fingerprint(batch))
                values.append(number(metric((call or call_with)(model, batch), batch), metric))
        return tuple(values)

    called: set[str] = set()
    table = PathTable(selection)

    def note(call: Call) -> None:
        called.add(table.path_of(call.module, call.path))

    with without_fast_path(selection), attach(selection, make_hooks(before=note)):
        baselines = measure()
    if not baselines:
        raise EditError("there are no batches to sweep over")
    result = Sweep(type(model).__name__, repr(change), baselines, selection.paths, [*parts], called)
    record = Record(save, result, settings(result, change, part, key, parts, metric))
    record.resume()
    places = [(path, label) for path in result.paths for label in parts if (path, label) not in result.cells]
    for path, label in shown(places, progress):
        alone = select(model, selection.modules[path])
        with edit_calls(alone, {part: change}, key=key, at=parts[label]):
            result.cells[path, label] = Cell(path, label, measure())
        record.write()
    return result


def by_label(over: Mapping[str, Any] | Collection[Any] | None) -> dict[str, Any]:
    """The parts of a tensor by label; the whole where none are given."""
    if over is None:
        return {WHOLE: None}
    found = {str(label): place for label, place in over.items()} if isinstance(over, Mapping) else {}
    found = found or {label_of(place): place for place in over}
    if not found or len(found) < len(over):
        raise EditError(f"over={over!r} has no parts, or two of the same name; give them names: over={{'first': ...}}")
    return found


def label_of(place: Any) -> str:
    """An `at=` in a word or two."""
    if isinstance(place, int | str):
        return str(place)
    shown = str(place)
    return shown.removeprefix("at(").removesuffix(")") if hasattr(place, "index") and shown.startswith("at(") else shown


def call_with(model: Module, batch: Any) -> Any:
    """What a model gives for a batch."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def number(value: Any, metric: Metric) -> float:
    """What a metric gave, as a float."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        name = getattr(metric, "__qualname__", type(metric).__name__)
        shape = f" of shape {[*value.shape]}" if isinstance(value, Tensor) else ""
        raise EditError(f"the metric {name} gave a {type(value).__name__}{shape}, not a number") from None


def refuse_other_batch(prints: list[str], place: int, own: str) -> None:
    """EditError where a batch is another than it was the first time."""
    if place == len(prints):
        prints.append(own)
    elif prints[place] != own:
        raise EditError(
            f"batch {place} is another than the first time, so that places cannot be compared; "
            "give a list of batches, or a loader that neither shuffles nor augments"
        )


def shown(places: list[tuple[str, str]], progress: bool) -> Iterator[tuple[str, str]]:
    """The places one by one, with a bar on stderr where that is a terminal."""
    from hookline.model.console import Console, track

    console = Console(stderr=True)
    wanted = progress and console.is_terminal
    yield from track(places, "sweeping", console=console, transient=True, disable=not wanted)


# Going on where an earlier one stopped


class Record:
    """What a sweep has measured so far, in a folder; nowhere without one."""

    def __init__(self, folder: str | os.PathLike[str] | None, result: Sweep, settings: dict[str, Any]) -> None:
        self.folder = None if folder is None else Path(folder)
        self.result = result
        self.settings = settings

    def resume(self) -> None:
        """Take over what the folder holds; StoreError where that is of another sweep."""
        if self.folder is None or not path_of(self.folder).exists():
            return
        document, _ = read(self.folder, kind="sweep")
        for name, value in self.settings.items():
            if document.get(name) != value:
                raise StoreError(
                    f"{self.folder} holds a sweep of another {name}: {described(document.get(name))}, not {value!r}; "
                    "give another folder, or remove it"
                )
        with damage_told(str(self.folder / "sweep.json")):
            for cell in member(document, "cells", listed(self._cell)):
                self.result.cells[cell.path, cell.label] = cell

    def _cell(self, data: Any) -> Cell:
        """A place that is one of this sweep's; MemberError where it is not."""
        expect_object(data, frozenset(("path", "label", "values")))
        cell = Cell(
            path=member(data, "path", one_of(*self.result.paths)),
            label=member(data, "label", one_of(*self.result.labels)),
            values=member(data, "values", listed(number_text)),
        )
        if len(cell.values) != len(self.result.baselines):
            raise expected(f"a list of {len(self.result.baselines)}", data["values"]).within("values")
        return cell

    def write(self) -> None:
        """Put what was measured so far into the folder, whole or not at all."""
        if self.folder is not None:
            cells = [{**asdict(cell), "values": [*map(str, cell.values)]} for cell in self.result]
            write(self.folder, {**self.settings, "cells": cells}, {}, kind="sweep")


def settings(result: Sweep, change: Edit, part: str, key: Any, parts: dict[str, Any], metric: Metric) -> dict[str, Any]:
    """What two sweeps have in common where one can go on with the other."""
    return {
        "model": result.model,
        "edit": f"{change!r} {fingerprint(change)}",
        "part": part,
        "key": repr(key),
        "places": result.paths,
        "labels": [f"{label}: {place!r}" for label, place in parts.items()],
        "metric": f"{getattr(metric, '__qualname__', type(metric).__name__)} {fingerprint(metric)}",
        "baseline": [*map(str, result.baselines)],
    }
