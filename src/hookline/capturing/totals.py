"""Totals: what the activations of a data set add up to, as plain data that merges exactly."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from hookline.capturing.cover import Cover
from hookline.capturing.signature import SAYS, shown
from hookline.capturing.total import Measures, Total
from hookline.errors import CaptureError
from hookline.messages import counted
from hookline.result import Result
from hookline.store.folder import write

DATA = ("examples", "data", "order", "inputs")  # the fields of a signature that the data set makes


class Totals(Result[Total]):
    """What the activations of a data set add up to, as `hookline.totals` finds it: a Total for each point.

    `a + b` merges the totals of two parts of the data. The result is bit for bit that of one process over all of it, in
    any order and however the parts were cut, as long as `exact` is true.

    - `found[path]`: a `Total`; `found[i]`, iteration and `len` go over the points;
    - `examples`: how many examples were counted; `skipped`: why others were left out, by number;
    - `finished`: whether every batch of the data was taken; `exact`: whether no sum lost anything;
    - `ids`: the ids of the examples in `top`, by number.
    """

    noun: ClassVar[str] = "totals"
    entry: ClassVar[str] = "total"
    columns: ClassVar[Sequence[str]] = (
        *("path", "type", "examples", "rows", "shape", "dtype", "mean", "std", "min", "max", "zeros", "exact"),
    )

    def __init__(
        self,
        model: str,
        signature: Mapping[str, Any],
        measures: Measures,
        covers: Iterable[Cover],
        points: Iterable[Total],
        ids: Mapping[int, str | int],
    ) -> None:
        self.model, self.signature, self.measures = model, dict(signature), measures
        self.covers = tuple(sorted(covers, key=identity))
        self.points = {point.path: point for point in points}
        named = set().union(*(point.top.numbers for point in self.points.values() if point.measures.top))
        self.ids: dict[int, str | int] = {number: ids.get(number, number) for number in sorted(named)}

    @property
    def has_rows(self) -> bool:
        """Whether an example has several rows: it was measured with `rows=`."""
        return self.signature["rows"] is not None

    @property
    def examples(self) -> int:
        """How many examples were counted, without the skipped ones."""
        return sum(cover.counted for cover in self.covers)

    @property
    def skipped(self) -> dict[int, str]:
        """Why an example was left out, by its number. CaptureError where two data sets have skipped examples: see
        `covers`."""
        found = [cover.skipped for cover in self.covers if cover.skipped]
        if len(found) > 1:
            raise CaptureError("these totals are of several data sets, each with numbers of its own: see covers")
        return dict(found[0]) if found else {}

    @property
    def finished(self) -> bool:
        """Whether every batch of the data was taken."""
        return not self.missing

    @property
    def missing(self) -> int:
        """How many batches of the data were not taken."""
        return sum(cover.missing for cover in self.covers)

    @property
    def exact(self) -> bool:
        """Whether no sum lost anything. Where one did, its last bits may depend on the order of the batches."""
        return all(point.exact for point in self.points.values())

    @property
    def summary(self) -> str:
        """What was counted, in a line."""
        rows = sum(point.rows for point in self)
        skipped = sum(len(cover.skipped) for cover in self.covers)
        parts = (
            counted(len(self.points), "point"),
            counted(self.examples, "example"),
            *((f"{skipped:,} skipped",) if skipped else ()),
            counted(rows, "row"),
            *((f"{self.missing:,} of {self._batches:,} batches missing",) if self.missing else ()),
            *(() if self.exact else ("sums rounded",)),
        )
        return f"{self.model}: {', '.join(parts)}"

    @property
    def _batches(self) -> int:
        return sum(cover.batches for cover in self.covers)

    def __add__(self, other: "Totals") -> "Totals":
        """The totals of both together; CaptureError where they do not belong together, or share examples."""
        return merged(self, other) if isinstance(other, Totals) else NotImplemented

    def __radd__(self, other: object) -> "Totals":
        """`sum` begins with 0."""
        return self if other == 0 and type(other) is int else NotImplemented

    def to_dict(self) -> dict[str, Any]:
        """The totals as plain data for JSON, with the figures of each point; tensors are named, not included."""
        from hookline.capturing.totals_document import to_document

        return to_document(self)[0]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the totals to a folder, whole or not at all; totals saved there before are replaced.

        Raises StoreError where the folder holds something else.
        """
        from hookline.capturing.totals_document import to_document

        write(folder, *to_document(self), kind=self.noun)

    def _entries(self) -> Sequence[Total]:
        return [*self.points.values()]

    def _row(self, entry: Total, /) -> Mapping[str, Any]:
        own = {name: getattr(entry, name) for name in ("path", "type", "examples", "rows", "dtype", "exact")}
        found = {**own, "shape": [*entry.shape], **entry.figures()}
        return {name: found[name] for name in self.columns}


def identity(cover: Cover) -> str:
    """What tells the data set of a cover from another."""
    return json.dumps([cover.data, cover.examples], sort_keys=True)


def merged(one: Totals, other: Totals) -> Totals:
    """The totals of both together; CaptureError where they do not belong together, or share examples."""
    expect_alike(one, other)
    covers = {identity(cover): cover for cover in one.covers}
    for cover in other.covers:
        there = covers.get(identity(cover))
        covers[identity(cover)] = cover if there is None else there.joined(cover)
    if one.measures.top and len(covers) > 1:
        raise CaptureError(
            "these totals are of different data, and top= numbers the examples of each from 0; leave out top=, or take "
            "parts of one data set with part=(number, of)"
        )
    points = {path: point.clone() for path, point in (one.points or other.points).items()}
    if one.points and other.points:
        for path, point in points.items():
            point.merge(other.points[path])
    for point in points.values():
        point.settle()
    return Totals(one.model, one.signature, one.measures, covers.values(), points.values(), {**one.ids, **other.ids})


def expect_alike(one: Totals, other: Totals) -> None:
    """CaptureError that names the first thing in which two totals differ, besides their examples."""
    if one.model != other.model:
        raise CaptureError(f"these totals are of other models: {one.model}, {other.model}")
    for name, value in one.signature.items():
        if other.signature.get(name) != value:
            raise CaptureError(
                f"these totals are of {SAYS.get(name, f'another {name}')}: {shown(value)}, "
                f"{shown(other.signature.get(name))}"
            )
    for name in Measures.__dataclass_fields__:
        values = getattr(one.measures, name), getattr(other.measures, name)
        if values[0] != values[1]:
            raise CaptureError(f"these totals are of another {name}=: {values[0]}, {values[1]}")
    if one.points and other.points and one.points.keys() != other.points.keys():
        raise CaptureError(f"one of these totals has {[*one.points]}, the other {[*other.points]}")
