"""sweep: apply one edit to each module in turn, and measure a metric."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from hookline.edits.digest import digest_of
from hookline.edits.edit import Edit, as_edit
from hookline.edits.hooks import Change, edit_calls, without_fast_path
from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import make_hooks
from hookline.errors import ArgumentError, EditError, StoreError
from hookline.messages import function_name
from hookline.model.call_with import call_with
from hookline.model.restored import restored
from hookline.model.select import Where, select
from hookline.store.folder import read
from hookline.store.members import damage_told
from hookline.store.members import shown as described
from hookline.store.opening import path_of
from hookline.sweeping.sweep_document import decode
from hookline.sweeping.swept import WHOLE, Cell, Sweep

Metric: TypeAlias = Callable[[Any, Any], Any]
"""A function of the model's output and the batch that returns a number."""


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
    """Apply one edit to each selected module in turn, and measure a metric: ablation, activation patching.

    - `edit`: as for `part` in `hookline.edit`; `edits.patch(run)` patches each module's own values.
    - `metric`: `metric(output, batch)` returns a number for each batch.
    - `batches`: the inputs of each call: a tensor, a tuple or list of arguments, or a dict of named ones. They must be
      the same each time they are iterated.
    - `part`, `key`: which tensor the edit changes, as in `hookline.edit`.
    - `over`: a second axis: several `at=` of `hookline.edit`, by label or in a list, such as
      `[edits.at(position=i) for i in range(8)]`.
    - `call`: `call(model, batch)` calls the model, for any other kind of batch.
    - `save`: a folder to save to after each place. An interrupted sweep continues from there, if model, edit, places,
      metric and baseline are the same (for functions: their code and closure, not what they look up in their module).
    - `progress`: whether to show progress on a terminal.

    The model runs without gradients, in the mode it is in, from the same random state and buffers in each place. Both
    are restored afterwards.

    Raises ArgumentError for a wrong edit. Raises EditError for an edit that does not fit, for a metric that does not
    return a number, and for batches that change between iterations, as with a loader that shuffles. Raises StoreError
    if the folder holds something else.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
    >>> batches = [torch.ones(1, 2), torch.zeros(1, 2)]
    >>> swept = hookline.sweep(model, "*", hookline.edits.zero(), lambda output, batch: output.mean(), batches)
    >>> swept["2"].value, swept.paths
    (0.0, ['0', '1', '2'])
    """
    change = as_edit(edit)
    if part not in ("input", "output"):
        raise ArgumentError(f"part must be 'input' or 'output', not {part!r}")
    selection = select(model, where)
    parts = by_label(over)
    held = batches if not isinstance(batches, Iterator) else [*batches]

    prints: list[str] = []

    def measure() -> tuple[float, ...]:
        values = []
        with torch.no_grad(), restored(model, ()):
            for place, batch in enumerate(held):
                refuse_other_batch(prints, place, digest_of(batch))
                values.append(as_number(metric((call or call_with)(model, batch), batch), metric))
        return tuple(values)

    called: set[str] = set()

    def note(call: Call) -> None:
        called.add(call.path)

    with without_fast_path(selection), attach(selection, make_hooks(before=note)):
        baselines = measure()
    if not baselines:
        raise ArgumentError("there are no batches to sweep over")
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
    """The parts of a tensor by label; the whole tensor if none are given."""
    if over is None:
        return {WHOLE: None}
    found = {str(label): place for label, place in over.items()} if isinstance(over, Mapping) else {}
    found = found or {label_of(place): place for place in over}
    if not found or len(found) < len(over):
        raise ArgumentError(
            f"over must have at least one part, and no two of the same name, not {over!r}; "
            "name them: over={'first': ...}"
        )
    return found


def label_of(place: Any) -> str:
    """A short label for an `at=`."""
    if isinstance(place, int | str):
        return str(place)
    shown = str(place)
    return shown.removeprefix("at(").removesuffix(")") if hasattr(place, "index") and shown.startswith("at(") else shown


def as_number(value: Any, metric: Metric) -> float:
    """The value of a metric as a float; raises EditError if it is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        name = function_name(metric)
        shape = f" of shape {[*value.shape]}" if isinstance(value, Tensor) else ""
        raise EditError(f"the metric {name} returned a {type(value).__name__}{shape}, not a number") from None


def refuse_other_batch(prints: list[str], place: int, own: str) -> None:
    """Raise EditError for a batch that is not what it was the first time."""
    if place == len(prints):
        prints.append(own)
    elif prints[place] != own:
        raise EditError(
            f"batch {place} is not what it was the first time, so places cannot be compared; "
            "give a list of batches, or a loader that neither shuffles nor augments"
        )


def shown(places: list[tuple[str, str]], progress: bool) -> Iterator[tuple[str, str]]:
    """The places one by one, with a bar on stderr where that is a terminal."""
    from hookline.model.console import Console, track

    console = Console(stderr=True)
    wanted = progress and console.is_terminal
    yield from track(places, "sweeping", console=console, transient=True, disable=not wanted)


# Continuing an interrupted sweep


def resume(result: Sweep, folder: str | os.PathLike[str]) -> None:
    """Take over what a folder holds; raises StoreError if it belongs to another sweep."""
    if not path_of(folder).exists():
        return
    document, _ = read(folder, kind=Sweep.noun)
    with damage_told(os.path.join(folder, "sweep.json")):
        found = decode(document)
    one, other = (asked(each) for each in (found, result))
    for name, value in other.items():
        if one.get(name) != value:
            raise StoreError(
                f"{folder} holds a sweep with another {name}: {described(one.get(name))}, not {value!r}; "
                "give another folder, or remove it"
            )
    result.cells.update(found.cells)


def asked(sweep: Sweep) -> dict[str, Any]:
    """What must be the same in two sweeps for one to continue the other."""
    return {
        **{"model": sweep.model, "edit": sweep.edit, "places": sweep.paths, "labels": sweep.labels},
        **{**sweep.settings, "baseline": [*map(str, sweep.baselines)]},
    }


def settings(change: Edit, part: str, key: Any, parts: dict[str, Any], metric: Metric) -> dict[str, str]:
    """The settings of a sweep besides model and places, as text."""
    return {
        "edit": f"{change!r} {digest_of(change)}",
        "part": part,
        "key": repr(key),
        "parts": repr(parts),
        "metric": f"{function_name(metric)} {digest_of(metric)}",
    }
