"""Cover: which batches of a data set were taken, in little memory however many there are."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hookline.errors import CaptureError

Part: TypeAlias = tuple[int, int]
"""The batches `first`, `first + step`, `first + 2 * step` and so on, to the end of the data set."""
WHOLE: Part = (0, 1)


@dataclass(frozen=True, slots=True)
class Cover:
    """Which batches of one data set were taken.

    - `data`: what tells the data set from another; `inputs`: a digest of the model's inputs for its first batch;
    - `examples`: how many it has; `batch`: how many are in a batch;
    - `parts`: the batches, each part as its first one and the step from one to the next;
    - `skipped`: why an example was left out, by its number.
    """

    data: Mapping[str, Any]
    inputs: str | None
    examples: int
    batch: int
    parts: tuple[Part, ...]
    skipped: Mapping[int, str] = field(default_factory=dict)

    @property
    def batches(self) -> int:
        """How many batches the data set has."""
        return -(-self.examples // self.batch)

    @property
    def taken(self) -> int:
        """How many of them were taken."""
        return sum(len(range(first, self.batches, step)) for first, step in self.parts)

    @property
    def counted(self) -> int:
        """How many examples were taken, without the skipped ones."""
        has_last = any(self.batches - 1 in range(first, self.batches, step) for first, step in self.parts)
        short = self.batches * self.batch - self.examples if has_last else 0
        return self.taken * self.batch - short - len(self.skipped)

    @property
    def missing(self) -> int:
        """How many were not."""
        return self.batches - self.taken

    def joined(self, other: "Cover") -> "Cover":
        """What both took of one data set; CaptureError where they took a batch twice."""
        if self.inputs != other.inputs:
            raise CaptureError(
                f"these totals are of other inputs for the same data (a changed tokenizer?): {self.inputs}, "
                f"{other.inputs}"
            )
        for one in self.parts:
            for another in other.parts:
                batch = shared(one, another, self.batches)
                if batch is not None:
                    first, last = batch * self.batch, min((batch + 1) * self.batch, self.examples) - 1
                    raise CaptureError(
                        f"both totals have examples {first} to {last} of the same data, which would count twice; "
                        "give each process its own part=(number, of)"
                    )
        parts = simplest((*self.parts, *other.parts))
        skipped = dict(sorted({**self.skipped, **other.skipped}.items()))
        return Cover(self.data, self.inputs, self.examples, self.batch, parts, skipped)


def shared(one: Part, other: Part, batches: int) -> int | None:
    """The first batch that two parts share; None where there is none."""
    (first, step), (other_first, other_step) = one, other
    if (first - other_first) % math.gcd(step, other_step):
        return None
    begin = max(first, other_first)
    begin += (first - begin) % step
    for batch in range(begin, min(begin + math.lcm(step, other_step), batches), step):
        if (batch - other_first) % other_step == 0:
            return batch
    return None


def simplest(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The same batches in as few parts as their steps allow; the same for every order of the parts.

    >>> simplest([(1, 4), (0, 2), (3, 4)])
    ((0, 1),)
    """
    given = [*parts]
    step = math.lcm(*(step for _, step in given))
    left = {number for first, own in given for number in range(first, step, own)}
    found = []
    for own in (each for each in range(1, step + 1) if step % each == 0):
        for first in range(own):
            numbers = range(first, step, own)
            if left.issuperset(numbers):
                left.difference_update(numbers)
                found.append((first, own))
    return tuple(sorted(found))
