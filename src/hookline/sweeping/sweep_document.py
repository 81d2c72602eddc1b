"""A Sweep as a plain document, and back."""

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
    """All of a sweep for JSON: what was asked, the baselines, and `cells`, the places that were measured."""
    return {**SWEEP.write(sweep), "cells": [CELL.write(cell) for cell in sweep]}


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
