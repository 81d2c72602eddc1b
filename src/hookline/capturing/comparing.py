"""Comparing two captures: which examples belong together, then their rows, some megabytes at a time."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from hookline.capturing.captured import Capture
from hookline.capturing.compared import CaptureDiff, PointDiff, larger
from hookline.capturing.files import DataFile, row_bytes
from hookline.capturing.point import Point
from hookline.capturing.signature import SAYS, shown
from hookline.messages import dtype_name

Key: TypeAlias = str | int | tuple[str | int, int]
PIECE = 2**23  # bytes of rows that are compared at once


def diff_captures(a: Capture, b: Capture) -> CaptureDiff:
    """How two captures differ, point by point."""
    ids_a, ids_b = captured_ids(a), captured_ids(b)
    numbers = {key: number for number, key in ids_b.items()}
    partner = {number: numbers[key] for number, key in ids_a.items() if key in numbers}
    paths = dict.fromkeys([*(point.path for point in a), *(point.path for point in b)])
    return CaptureDiff(
        a.model if a.model == b.model else f"{a.model} and {b.model}",
        signature_differences(a, b),
        len(partner),
        len(ids_a) - len(partner),
        len(ids_b) - len(partner),
        [point_diff(path, a, b, partner, ids_a) for path in paths],
    )


def captured_ids(capture: Capture) -> dict[int, Key]:
    """The id of each example that has rows, by its number; an id that comes again, with how often it came before."""
    again: Counter[str | int] = Counter()
    seen: set[str | int] = set()
    found: dict[int, Key] = {}
    for number, id in capture.ids_by_number().items():
        if id in seen:
            again[id] += 1
        seen.add(id)
        if number not in capture.skipped:
            found[number] = (id, again[id]) if id in again else id
    return found


def signature_differences(a: Capture, b: Capture) -> dict[str, tuple[str, str]]:
    """The fields of the signatures that differ, in the order in which a capture compares them."""
    names = dict.fromkeys([*SAYS, *a.signature, *b.signature])
    values = {name: (a.signature.get(name), b.signature.get(name)) for name in names}
    return {name: (shown(one), shown(other)) for name, (one, other) in values.items() if one != other}


def point_diff(path: str, a: Capture, b: Capture, partner: Mapping[int, int], ids: Mapping[int, Key]) -> PointDiff:
    """How one point differs."""
    one, other = (next((point for point in capture if point.path == path), None) for capture in (a, b))
    found, why = Found(), why_not(one, other)
    if one is not None and other is not None and not why.endswith(("first", "second", "shape")):
        found = compare_rows(one, other, partner)
    return PointDiff(
        path,
        next(point.type for point in (one, other) if point is not None),
        why,
        0 if one is None else one.rows,
        0 if other is None else other.rows,
        (None if one is None else one.shape, None if other is None else other.shape),
        (point_dtype(one), point_dtype(other)),
        compared=found.compared,
        differing=found.differing,
        largest=found.largest,
        other_rows=found.other_rows,
        first=found.first,
        first_id=None if found.first is None else id_text(ids[found.first]),
    )


def why_not(one: Point | None, other: Point | None) -> str:
    """What is not alike in two points as a whole; "" where nothing is."""
    if one is None or other is None:
        return "only in the second" if one is None else "only in the first"
    if one.shape != other.shape and one.rows and other.rows:
        return "other shape"
    return "other dtype" if one.dtype != other.dtype and one.rows and other.rows else ""


def id_text(id: Key) -> str:
    """An id as text."""
    return str(id[0] if isinstance(id, tuple) else id)


def point_dtype(point: Point | None) -> str | None:
    """The name of a point's dtype."""
    return None if point is None or point.dtype is None else dtype_name(point.dtype)


@dataclass(slots=True)
class Found:
    """What was found in the rows so far; see PointDiff."""

    compared: int = 0
    differing: int = 0
    largest: float = 0.0
    other_rows: int = 0
    first: int | None = None

    def differs_at(self, example: int) -> None:
        """An example differs."""
        self.first = example if self.first is None else min(self.first, example)


class Lookup:
    """Finds the file that has an example, and how many rows the example has; None where it has no rows."""

    def __init__(self, point: Point) -> None:
        self.point = point
        self.file: DataFile | None = None
        self.counts: list[int] = []

    def __call__(self, example: int) -> tuple[DataFile, int] | None:
        """The file and the number of rows of an example."""
        if self.file is None or example not in self.file.examples:
            self.file = self.point.holding(example)
            self.counts = [] if self.file is None else self.file.offsets.diff().tolist()
        return None if self.file is None else (self.file, self.counts[example - self.file.start])


def compare_rows(one: Point, other: Point, partner: Mapping[int, int]) -> Found:
    """Compare the rows of the examples that two points share."""
    found, lookup = Found(), Lookup(other)
    for file in one.files():
        for theirs, begin, end in stretches(file, partner, lookup, found):
            compare_stretch(file, theirs, range(begin, end), partner[begin], found)
    return found


def stretches(
    file: DataFile, partner: Mapping[int, int], lookup: Lookup, found: Found
) -> Iterator[tuple[DataFile, int, int]]:
    """Examples that follow on one another in a file of each capture, with as many rows: the other file, the first of
    them and the one after the last."""
    begin, theirs = 0, None
    for number, count in enumerate(file.offsets.diff().tolist(), file.start):
        match = partner.get(number)
        there = None if match is None else lookup(match)
        alike = there is not None and there[1] == count
        if there is not None and not alike:
            found.other_rows += 1
            found.differs_at(number)
        if alike and there is not None and there[0] is theirs and match == partner[begin] + number - begin:
            continue
        if theirs is not None:
            yield theirs, begin, number
        begin, theirs = number, there[0] if there is not None and alike else None
    if theirs is not None:
        yield theirs, begin, file.examples.stop


def compare_stretch(file: DataFile, theirs: DataFile, examples: range, match: int, found: Found) -> None:
    """Compare the rows of such examples, whose partners begin with number `match`."""
    begin, end = file.of(examples[0]).start, file.of(examples[-1]).stop
    ahead = theirs.of(match).start - begin
    found.compared += end - begin
    one, other = (each.beside("positions", rows) for each, rows in _both(file, theirs, begin, end, ahead))
    if one is not None and other is not None and not torch.equal(one, other):
        moved = {example_of(file, begin + row) for row in (one != other).nonzero()[:, 0].tolist()}
        found.other_rows += len(moved)
        found.differs_at(min(moved))
    piece = max(1, PIECE // max(1, row_bytes(file.shape, file.dtype)))
    for first in range(begin, end, piece):
        last = min(end, first + piece)
        one, other = (each.values(rows) for each, rows in _both(file, theirs, first, last, ahead))
        differing = differing_rows(one, other)
        if len(differing):
            found.differing += len(differing)
            found.differs_at(example_of(file, first + int(differing[0])))
            found.largest = larger(found.largest, largest_difference(one[differing], other[differing]))


def _both(file: DataFile, theirs: DataFile, begin: int, end: int, ahead: int) -> tuple[tuple[DataFile, slice], ...]:
    return (file, slice(begin, end)), (theirs, slice(begin + ahead, end + ahead))


def example_of(file: DataFile, row: int) -> int:
    """The number of the example that a row of a file belongs to."""
    return file.start + int(torch.searchsorted(file.offsets, row, right=True)) - 1


def differing_rows(one: Tensor, other: Tensor) -> Tensor:
    """The numbers of the rows that differ in a bit; of those of two dtypes, in a value."""
    if not one.nbytes:
        return torch.zeros(0, dtype=torch.int64)
    if one.dtype == other.dtype:
        return (
            (one.reshape(len(one), -1).view(torch.uint8) != other.reshape(len(other), -1).view(torch.uint8))
            .any(1)
            .nonzero()[:, 0]
        )
    one, other = (each.reshape(len(each), -1).to(torch.complex128) for each in (one, other))
    return ((one != other) & ~(one.isnan() & other.isnan())).any(1).nonzero()[:, 0]


def largest_difference(one: Tensor, other: Tensor) -> float:
    """The largest difference of two values; NaN where only one of them is NaN."""
    wide = torch.complex128 if one.is_complex() or other.is_complex() else torch.float64
    one, other = one.to(wide), other.to(wide)
    same = (one == other) | (one.isnan() & other.isnan())
    return float((one - other).abs().masked_fill(same, 0.0).max())
