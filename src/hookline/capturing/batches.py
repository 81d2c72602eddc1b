"""Runs the model over a range of examples, batch by batch, and skips examples that fail where that is asked for."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from hookline.capturing.batch import Gather
from hookline.capturing.block import Block
from hookline.capturing.chance import chance_of
from hookline.capturing.examples import Examples
from hookline.capturing.misuse import MisuseError
from hookline.capturing.parts import expect_whole
from hookline.errors import CaptureError

Errors: TypeAlias = Literal["raise", "skip"]
"""What becomes of an example that fails or has NaN."""
Bad: TypeAlias = Callable[[Mapping[str, Block]], tuple[int, str] | None]
"""Finds the first example of a batch that cannot be taken: its place in the batch, and what is wrong with it."""


@dataclass(slots=True)
class Taken:
    """What one batch came to.

    - `start`: the number of its first example; `ids`: of each example;
    - `found`: the rows of each point: of the whole batch, or where that failed of each example alone, 1 for one that
      is skipped;
    - `skipped`: what went wrong, by the number of the example.
    """

    start: int
    ids: list[str | int] = field(default_factory=list)
    found: list[dict[str, Block] | int] = field(default_factory=list)
    skipped: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class Batches:
    """Runs the model over batches of a data set.

    - `prepare`: makes the model's inputs of a batch;
    - `errors`: what becomes of examples that fail; `bad`: finds those whose rows cannot be taken;
    - `seed`: of random numbers that the data, `prepare` or the model draws: each batch has its own;
    - `in_step`: whether the model is spread over the processes, which compare what they have in the first batch.
    """

    examples: Examples
    gather: Gather
    prepare: Callable[[Any], Any]
    errors: Errors
    seed: int
    bad: Bad
    in_step: bool = False
    devices: Sequence[torch.device] = ()
    is_whole: bool = False  # whether the processes have compared

    def __post_init__(self) -> None:
        self.devices = self.gather.devices

    def run(self, start: int, stop: int) -> Iterator[Taken]:
        """What each batch of a range of examples comes to; fewer batches where a stream ends."""
        for first in range(start, stop, self.examples.batch):
            while (at := self.examples.on_the_way(first)) is not None:
                with self._chance(at):  # as where these examples are used
                    self.examples.skip_to(min(at + self.examples.batch, first))
            with self._chance(first):
                found = self._range(first, min(first + self.examples.batch, stop))
            if not found:
                return
            yield from found

    def _chance(self, first: int) -> AbstractContextManager[None]:
        """The random numbers of the batch that begins with an example."""
        return chance_of(f"{self.seed} {first}", self.devices)

    def _range(self, first: int, last: int) -> list[Taken]:
        """What a batch comes to, given by its examples; nothing after the end of a stream."""
        try:
            found = [*self.examples.batches(first, last)]
        except Exception as error:
            if self.examples.is_stream:
                raise  # which cannot go on behind an example that it fails to give
            self._failed(error, first, last)
            return [self._one_by_one(range(first, last))]
        return [self._batch(*batch) for batch in found]

    def _failed(self, error: Exception, first: int, stop: int) -> None:
        """Raise an error again, with a note of the examples, unless such examples are to be skipped."""
        if self.errors == "raise" or isinstance(error, MisuseError):
            error.add_note(f"hookline: in examples {first} to {stop - 1} of the data set")
            raise error

    def _batch(self, first: int, batch: Any, ids: Sequence[str | int]) -> Taken:
        """What a batch comes to."""
        numbers = range(first, first + len(ids))
        try:
            return Taken(first, [*ids], [self._rows(batch, numbers)])
        except Exception as error:
            self._failed(error, numbers.start, numbers.stop)
            return self._one_by_one(numbers)

    def _rows(self, batch: Any, numbers: Sequence[int]) -> dict[str, Block]:
        """The rows of a batch; CaptureError where an example cannot be taken."""
        found = self.gather.batch(self.prepare(batch), numbers)
        if self.in_step and not self.is_whole:
            expect_whole(found)
            self.is_whole = True
        bad = self.bad(found)
        if bad is not None:
            place, what = bad
            raise CaptureError(f"example {numbers[place]} {what}; errors='skip' leaves such examples out")
        return found

    def _one_by_one(self, numbers: Sequence[int]) -> Taken:
        """The rows of each example alone, of a batch that failed as a whole. One that fails alone is skipped."""
        taken = Taken(numbers[0])
        for number in numbers:
            own: Sequence[str | int] = [number]
            found: dict[str, Block] | int
            try:
                with self._chance(number):
                    ((_, batch, own),) = self.examples.batches(number, number + 1)
                    found = self._rows(batch, [number])
            except MisuseError:
                raise
            except Exception as error:
                taken.skipped[number] = f"{type(error).__name__}: {error}"
                found = 1
            taken.ids.extend(own)
            taken.found.append(found)
        return taken


def nan_in(found: Mapping[str, Block]) -> tuple[int, str] | None:
    """The place in the batch of the first example that has NaN, and where it has it."""
    for point, block in found.items():
        values = block.values
        if may_have_nan(values) and bool(torch.isnan(values).any()):
            bad = torch.isnan(values.flatten(1) if values.dim() > 1 else values[:, None]).any(1)
            return example_with(block, bad), f"has NaN at {point!r}"
    return None


def example_with(block: Block, bad: Tensor) -> int:
    """The place in the batch of the example that the first of some rows belongs to; `bad` is a mask of rows."""
    first = int(bad.nonzero()[0])
    return int((torch.tensor(block.counts).cumsum(0) <= first).sum())


def may_have_nan(values: Tensor) -> bool:
    """False where no value is NaN. The sum is NaN if one is, and takes a tenth of the time of a look at each; it may be
    NaN or infinite without."""
    if not values.is_floating_point():
        return False
    try:
        return not math.isfinite(values.sum())
    except (RuntimeError, NotImplementedError):  # float8 has no sum
        return True
