"""Turn a Sweep into a plain document, and back."""

from functools import partial
from typing import Any

from hookline.store.codec import Schema
from hookline.store.members import MemberError, expected, listed, mapped, member, number, one_of, text
from hookline.sweeping.swept import Cell, Sweep

CELL = Schema(Cell, {"path": text, "label": text, "values": listed(number)})
SWEEP = Schema(
    Sweep,
    {
        **{"model": text, "edit": text, "baselines": listed(number), "paths": listed(text), "labels": listed(text)},
        **{"never_called": listed(text), "settings": mapped(text)},
    },
    beside=("cells",),
)


def to_document(sweep: Sweep) -> dict[str, Any]:
    """A sweep as data for JSON: its settings, the baselines, and the measured `cells`."""
    return {**SWEEP.write(sweep), "cells": [CELL.write(cell) for cell in sweep]}


def decode(document: Any, _: object = None) -> Sweep:
    """The sweep in a document; MemberError where it is not a sweep."""
    found = SWEEP.read(document)
    if not found.baselines:
        raise MemberError("is empty").within("baselines")
    for cell in member(document, "cells", listed(partial(_cell, found))):
        found.cells[cell.path, cell.label] = cell
    return found


def _cell(sweep: Sweep, data: Any) -> Cell:
    """A Cell of the sweep; MemberError where its path or label is not in the sweep."""
    cell = CELL.read(data)
    member(data, "path", one_of(*sweep.paths))
    member(data, "label", one_of(*sweep.labels))
    if len(cell.values) != len(sweep.baselines):
        raise expected(f"a list of {len(sweep.baselines)}", data["values"]).within("values")
    return cell
