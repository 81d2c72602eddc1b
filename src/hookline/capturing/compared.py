"""CaptureDiff, PointDiff: how two captures differ, as plain data."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hookline.capturing.signature import SAYS
from hookline.messages import counted, few
from hookline.result import Result
from hookline.store.codec import Schema
from hookline.store.folder import write
from hookline.store.members import (
    MemberError,
    count,
    expect_object,
    listed,
    maybe,
    member,
    number,
    shape,
    text,
)


@dataclass(frozen=True, slots=True)
class PointDiff:
    """How one point differs between two captures.

    - `path`, `type`: the module and its class; `why`: what is not alike as a whole ("only in the first", "other shape",
      "other dtype"), "" where values were compared;
    - `rows_a`, `rows_b`: how many rows each has; `shapes`, `dtypes`: of a row, in each;
    - `compared`: rows of examples that both have with as many rows; `differing`: how many of these differ in a bit;
    - `largest`: the largest difference of two values, NaN where one of them is NaN;
    - `other_rows`: examples that both have, with another number of rows or other positions;
    - `first`, `first_id`: the first example that differs, by its number in the first capture and its id.
    """

    path: str
    type: str
    why: str
    rows_a: int
    rows_b: int
    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    dtypes: tuple[str | None, str | None]
    compared: int = 0
    differing: int = 0
    largest: float = 0.0
    other_rows: int = 0
    first: int | None = None
    first_id: str | None = None

    @property
    def differs(self) -> bool:
        """Whether anything but the set of examples is another."""
        return bool(self.why or self.differing or self.other_rows)

    @property
    def identical(self) -> bool:
        """Whether every row is the same, bit for bit."""
        return not self.differs

    @property
    def share(self) -> float:
        """The share of the compared rows that differ, from 0 to 1."""
        return self.differing / self.compared if self.compared else 0.0


def _pair_of(read: Any) -> Any:
    def of(value: Any) -> tuple[Any, Any]:
        found = listed(read)(value)
        if len(found) != 2:
            raise MemberError(f"expected a list of 2, got one of {len(found)}")
        return found[0], found[1]

    return of


POINT = Schema(
    PointDiff,
    {
        **{"path": text, "type": text, "why": text, "rows_a": count, "rows_b": count},
        **{"shapes": _pair_of(maybe(shape)), "dtypes": _pair_of(maybe(text))},
        **{"compared": count, "differing": count, "largest": number, "other_rows": count},
        **{"first": maybe(count), "first_id": maybe(text)},
    },
)


class CaptureDiff(Result[PointDiff]):
    """How two captures differ: a PointDiff for each point, in the first one's order. True if they differ.

    - `signature`: what was captured otherwise, each field with both values as text;
    - `examples`: how many both have; `only_a`, `only_b`: how many only one of them has.

    Examples are matched by their ids.
    """

    noun: ClassVar[str] = "comparison"
    entry: ClassVar[str] = "point"
    columns: ClassVar[Sequence[str]] = (
        *("path", "type", "differs", "why", "rows_a", "rows_b", "compared", "differing", "share", "largest"),
        *("other_rows", "first", "first_id"),
    )

    def __init__(
        self,
        model: str,
        signature: Mapping[str, tuple[str, str]],
        examples: int,
        only_a: int,
        only_b: int,
        points: Iterable[PointDiff],
    ) -> None:
        self.model, self.signature = model, dict(signature)
        self.examples, self.only_a, self.only_b = examples, only_a, only_b
        self.points = tuple(points)

    def _entries(self) -> Sequence[PointDiff]:
        return self.points

    def _row(self, entry: PointDiff, /) -> Mapping[str, Any]:
        return {name: getattr(entry, name) for name in self.columns}

    def __bool__(self) -> bool:
        """Whether a row, a point or the set of examples is another."""
        return bool(self.only_a or self.only_b) or any(point.differs for point in self.points)

    @property
    def summary(self) -> str:
        """What differs, in a line: first what was captured otherwise."""
        differ = sum(point.differs for point in self.points)
        asked = [SAYS.get(name, f"another {name}") for name in self.signature]
        first = f"{few(asked)}; " if asked else ""
        if not self:
            return f"{self.model}: {first}{counted(len(self.points), 'point')} of the same rows, bit for bit"
        examples = [f"{counted(self.only_a, 'example')} only in the first"] if self.only_a else []
        examples += [f"{counted(self.only_b, 'example')} only in the second"] if self.only_b else []
        rest = "".join(f"; {each}" for each in examples)
        return f"{self.model}: {first}{differ} of {len(self.points):,} points differ{rest}"

    def to_dict(self) -> dict[str, Any]:
        """The comparison as plain data that JSON can hold: numbers that are not finite are text."""
        return {
            "model": self.model,
            "signature": {name: [*values] for name, values in self.signature.items()},
            "examples": self.examples,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "points": [POINT.write(point) for point in self.points],
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the comparison to a folder, whole or not at all; replace one saved there before. Raises StoreError if
        the folder holds something else."""
        write(folder, self.to_dict(), {}, kind=self.noun)


MEMBERS = frozenset(("model", "signature", "examples", "only_a", "only_b", "points"))


def decode(document: Any, _: object = None) -> CaptureDiff:
    """The comparison in a document; raises MemberError if it holds none."""
    expect_object(document, MEMBERS)
    signature = member(document, "signature", expect_object)
    return CaptureDiff(
        member(document, "model", text),
        {name: member(signature, name, _pair_of(text)) for name in signature},
        member(document, "examples", count),
        member(document, "only_a", count),
        member(document, "only_b", count),
        member(document, "points", listed(POINT.read)),
    )


def larger(one: float, other: float) -> float:
    """The larger of two differences; NaN is larger than any."""
    return math.nan if math.isnan(one) or math.isnan(other) else max(one, other)
