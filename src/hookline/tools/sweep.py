"""sweep: one edit at a time over many places, and what each does to a metric."""

import math
import os
import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, overload

import torch
from torch import Tensor
from torch.nn import Module

from hookline.edits.digest import fingerprint
from hookline.edits.edit import Edit, as_edit
from hookline.edits.steps import Change, edit_calls, without_fast_path
from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import make_hooks
from hookline.errors import EditError, RecordError, StoreError
from hookline.messages import counted, few, figure
from hookline.model.paths import PathTable
from hookline.model.restored import restored
from hookline.model.select import Where, select
from hookline.result import Result
from hookline.store.codec import Schema
from hookline.store.folder import read, write
from hookline.store.members import (
    MemberError,
    damage_told,
    expected,
    listed,
    mapped,
    member,
    number,
    one_of,
    text,
)
from hookline.store.members import shown as described
from hookline.store.opening import path_of

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


CELL = Schema(Cell, {"path": text, "label": text, "values": listed(number)})


class Sweep(Result[Cell]):
    """What each place of a sweep did to the metric: its Cells in the model's order. It prints as a table, or as a heat
    map where there are parts (`over`).

    `sweep["encoder"]` is the first Cell of a module, `sweep["encoder", 2]` its third and `sweep["encoder", "head=2"]`
    that of one part; `sweep[0]` is the first of all.

    - `baseline`: the metric without an edit, the mean over the batches; `baselines`: of each batch;
    - `paths`, `labels`: the places, by module and by part; `never_called`: the selected modules that no batch reached;
    - `cells`: each Cell by (path, label); `edit`: the edit, as it prints; `model`: the class of the model;
    - `settings`: what else was asked, as text.
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
            return "was selected and not measured yet"
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
        """What was swept, in a line."""
        kind = "metric" if self.labels == [WHOLE] else "change of the metric"
        left = len(self.paths) * len(self.labels) - len(self)
        rest = f", {counted(left, 'place')} left" if left else ""
        return f"{self.model}: {kind} with {self.edit} in one place at a time; without it {figure(self.baseline)}{rest}"

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

    def to_dict(self) -> dict[str, Any]:
        """The sweep as plain data that JSON can hold: numbers that are not finite are text."""
        return {**SWEEP.write(self), "cells": [CELL.write(cell) for cell in self]}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the sweep to a folder, whole or not at all, as `hookline.sweep(..., save=folder)` does; a sweep saved
        there before is replaced. StoreError where the folder holds something else."""
        write(folder, self.to_dict(), {}, kind=self.noun)


SWEEP = Schema(
    Sweep,
    {
        **{"model": text, "edit": text, "baselines": listed(number), "paths": listed(text), "labels": listed(text)},
        **{"never_called": listed(text), "settings": mapped(text)},
    },
    beside=("cells",),
)


def decode(document: Any, _: object = None) -> Sweep:
    """The sweep that a document describes; MemberError where it describes none."""
    found = SWEEP.read(document)
    if not found.baselines:
        raise MemberError("is empty").within("baselines")
    for cell in member(document, "cells", listed(partial(_cell, found))):
        found.cells[cell.path, cell.label] = cell
    return found


def _cell(sweep: Sweep, data: Any) -> Cell:
    """A place that is one of the sweep's; MemberError where it is not."""
    cell = CELL.read(data)
    member(data, "path", one_of(*sweep.paths))
    member(data, "label", one_of(*sweep.labels))
    if len(cell.values) != len(sweep.baselines):
        raise expected(f"a list of {len(sweep.baselines)}", data["values"]).within("values")
    return cell


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
                values.append(as_number(metric((call or call_with)(model, batch), batch), metric))
        return tuple(values)

    called: set[str] = set()
    table = PathTable(selection)

    def note(call: Call) -> None:
        called.add(table.path_of(call.module, call.path))

    with without_fast_path(selection), attach(selection, make_hooks(before=note)):
        baselines = measure()
    if not baselines:
        raise EditError("there are no batches to sweep over")
    result = Sweep(
        type(model).__name__,
        repr(change),
        baselines,
        [path for path in selection.paths if path in called],
        parts,
        [path for path in selection.paths if path not in called],
        settings(change, part, key, parts, metric),
    )
    if save is not None:
        resume(result, save)
    places = [(path, label) for path in result.paths for label in parts if (path, label) not in result.cells]
    for path, label in shown(places, progress):
        alone = select(model, selection.modules[path])
        with edit_calls(alone, {part: change}, key=key, at=parts[label]):
            result.cells[path, label] = Cell(path, label, measure())
        if save is not None:
            result.save(save)
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


def as_number(value: Any, metric: Metric) -> float:
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


def resume(result: Sweep, folder: str | os.PathLike[str]) -> None:
    """Take over what a folder holds; StoreError where that is of another sweep."""
    if not path_of(folder).exists():
        return
    document, _ = read(folder, kind=Sweep.noun)
    with damage_told(os.path.join(folder, "sweep.json")):
        found = decode(document)
    one, other = (asked(each) for each in (found, result))
    for name, value in other.items():
        if one.get(name) != value:
            raise StoreError(
                f"{folder} holds a sweep of another {name}: {described(one.get(name))}, not {value!r}; "
                "give another folder, or remove it"
            )
    result.cells.update(found.cells)


def asked(sweep: Sweep) -> dict[str, Any]:
    """What two sweeps have in common where one can go on with the other."""
    return {
        **{"model": sweep.model, "edit": sweep.edit, "places": sweep.paths, "labels": sweep.labels},
        **{**sweep.settings, "baseline": [*map(str, sweep.baselines)]},
    }


def settings(change: Edit, part: str, key: Any, parts: dict[str, Any], metric: Metric) -> dict[str, str]:
    """What was asked beside model, edit and places, as text."""
    return {
        "edit": f"{change!r} {fingerprint(change)}",
        "part": part,
        "key": repr(key),
        "parts": repr(parts),
        "metric": f"{getattr(metric, '__qualname__', type(metric).__name__)} {fingerprint(metric)}",
    }
