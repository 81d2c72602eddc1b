"""The data set of a capture: its examples by number, in batches that do not depend on who asks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, default_collate

from hookline.edits.digest import digest_of
from hookline.errors import ArgumentError, ArgumentTypeError, CaptureError

Id: TypeAlias = str | Callable[[Any], str | int] | None
"""Where an example's id is found: the name of its field, or a function of the example. None: its number is its id."""
LOOKED_AT = 16  # examples that tell one data set from another


class Examples(ABC):
    """The examples of a data set.

    - `batch`: how many there are in a batch; `count`: how many in all, None where only the end will tell.
    """

    batch: int
    count: int | None
    is_stream = False

    def on_the_way(self, start: int) -> int | None:
        """The number of the example that a stream must read next to come to another; None where it is there, as data
        without an order of reading always is."""
        return None

    def skip_to(self, start: int) -> None:
        """Read examples up to another one, without using them."""
        return

    @abstractmethod
    def batches(self, start: int, stop: int) -> Iterator[tuple[int, Any, list[str | int]]]:
        """The batches of a range of examples: the number of the first example, the batch, the ids."""

    @abstractmethod
    def signature(self) -> dict[str, Any]:
        """What tells this data set from another, as plain data."""


class Indexed(Examples):
    """Examples that can be taken by number: anything with `len` and `[]`."""

    def __init__(self, data: Any, batch: int, id: Id, collate: bool) -> None:
        self.data, self.batch, self.id, self.collate = data, batch, id, collate
        self.count = len(data)
        self.in_columns = hasattr(data, "column_names")  # of HF datasets: a slice is a dict of columns

    def batches(self, start: int, stop: int) -> Iterator[tuple[int, Any, list[str | int]]]:
        """The batches of a range of examples."""
        for first in range(start, stop, self.batch):
            numbers = range(first, min(first + self.batch, stop))
            batch = self.data[numbers.start : numbers.stop] if self.in_columns else [self.data[n] for n in numbers]
            yield first, self._given(batch), ids_of(batch, self.id, numbers)

    def _given(self, batch: Any) -> Any:
        """A batch as it is handed on: as tensors for a model; as lists, by field where examples have fields, for a
        function that makes tensors of it."""
        if self.collate:
            return default_collate(by_example(batch) if self.in_columns else batch)
        if not self.in_columns and all(isinstance(example, Mapping) for example in batch):
            return {name: [example[name] for example in batch] for name in batch[0]}
        return batch

    def signature(self) -> dict[str, Any]:
        """How many examples there are, and what some of them hold."""
        assert self.count is not None
        told = getattr(self.data, "_fingerprint", None)
        if not isinstance(told, str):
            places = sorted({round(place * (self.count - 1) / (LOOKED_AT - 1)) for place in range(LOOKED_AT)})
            told = digest_of([self._looked_at(place) for place in places])
        return {"examples": self.count, "data": told}

    def _looked_at(self, number: int) -> Any:
        """An example; the name of its error where it cannot be read, which is for the capture to raise or to skip."""
        try:
            return self.data[number]
        except Exception as error:
            return type(error).__name__


class Loaded(Examples):
    """The batches of a DataLoader whose order is fixed, each made when it is asked for."""

    def __init__(self, loader: DataLoader[Any], id: Id) -> None:
        sampler = loader.sampler
        if isinstance(sampler, RandomSampler) or loader.batch_sampler is None or not loader.batch_size:
            raise ArgumentError(
                "this DataLoader shuffles, or makes batches of its own: which example a row belongs to would differ "
                "from run to run; give one with shuffle=False, or the data set itself"
            )
        self.order = None if isinstance(sampler, SequentialSampler) else [*sampler]
        self.data, self.batch, self.id = loader.dataset, loader.batch_size, id
        self.collate: Callable[[list[Any]], Any] = loader.collate_fn
        self.count = len(sampler)  # type: ignore[arg-type]
        if loader.drop_last:
            self.count -= self.count % self.batch

    def batches(self, start: int, stop: int) -> Iterator[tuple[int, Any, list[str | int]]]:
        """The batches of a range of examples."""
        for first in range(start, stop, self.batch):
            numbers = range(first, min(first + self.batch, stop))
            examples = [self.data[number if self.order is None else self.order[number]] for number in numbers]
            yield first, self.collate(examples), ids_of(examples, self.id, numbers)

    def signature(self) -> dict[str, Any]:
        """That of its data set, and the order."""
        own = Indexed(self.data, self.batch, None, collate=False).signature()
        return {**own, "examples": self.count, "order": None if self.order is None else digest_of(self.order)}


class Streamed(Examples):
    """Examples that come one after another, and of which only the end tells how many there are."""

    is_stream = True

    def __init__(self, data: Iterable[Any], batch: int, id: Id, collate: Callable[[list[Any]], Any] | None) -> None:
        if iter(data) is data:
            raise ArgumentTypeError(
                f"data is a {type(data).__name__}, which can be read once: a capture that goes on where it stopped "
                "begins anew; give an object with __iter__, or a list"
            )
        if id is None:
            raise ArgumentError("a stream of examples needs id=, by which a row is known again")
        self.data, self.batch, self.id, self.collate = data, batch, id, collate
        self.count = None
        self._stream: Iterator[Any] | None = None
        self._next = 0
        self._last: tuple[int, list[Any]] = (0, [])  # the batch that was read last, and the number of its first example

    def on_the_way(self, start: int) -> int | None:
        """The number of the next example where that is before `start`. Going back begins the stream anew."""
        if start < self._next:
            self._stream, self._next, self._last = None, 0, (0, [])
        return None if self._next == start or self._next == self.count else self._next

    def skip_to(self, start: int) -> None:
        """Read examples up to another one; fewer where the stream ends."""
        self._read(start - self._next)

    def _read(self, wanted: int) -> list[Any]:
        """So many examples; fewer where the stream ends."""
        if self._stream is None:
            self._stream = iter(self.data)
        examples = [*islice(self._stream, wanted)]
        self._next += len(examples)
        if len(examples) < wanted:
            self.count = self._next  # that is its end
        return examples

    def batches(self, start: int, stop: int) -> Iterator[tuple[int, Any, list[str | int]]]:
        """The batches of a range; fewer where the stream ends."""
        first, examples = self._last
        if first <= start and stop <= first + len(examples):  # some of the batch that was read last, once more
            yield self._given(start, examples[start - first : stop - first])
            return
        while (at := self.on_the_way(start)) is not None:
            self.skip_to(min(at + self.batch, start))
        while self._next < stop:
            first = self._next
            examples = self._read(min(self.batch, stop - first))
            if not examples or first < start:  # the stream has ended
                return
            self._last = first, examples
            yield self._given(first, examples)

    def _given(self, first: int, examples: list[Any]) -> tuple[int, Any, list[str | int]]:
        """Examples as a batch."""
        batch: Any = examples
        if self.collate is not None:
            batch = self.collate(examples)
        elif all(isinstance(example, Mapping) for example in examples):
            batch = {name: [example[name] for example in examples] for name in examples[0]}
        return first, batch, ids_of(examples, self.id, range(first, first + len(examples)))

    def signature(self) -> dict[str, Any]:
        """What the first examples hold."""
        return {"examples": None, "data": digest_of([*islice(iter(self.data), LOOKED_AT)])}


def examples_of(data: Any, batch: int, id: Id, collate: bool) -> Examples:
    """The examples of whatever a user calls a data set; ArgumentTypeError for what is none."""
    if isinstance(data, DataLoader):
        if isinstance(data.dataset, IterableDataset):
            if data.drop_last or not data.batch_size:
                raise ArgumentError("a DataLoader over a stream needs batch_size, and drop_last=False")
            return Streamed(data.dataset, data.batch_size, id, data.collate_fn)
        return Loaded(data, id)
    if hasattr(data, "iloc"):
        raise ArgumentTypeError("a DataFrame is indexed by column; give data.to_dict('records')")
    if hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, str | bytes | Mapping):
        if len(data) == 0:
            raise ArgumentError("the data set has no examples")
        return Indexed(data, batch, id, collate)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | Mapping):
        return Streamed(data, batch, id, default_collate if collate else None)
    raise ArgumentTypeError(
        f"data must have len and [], or be iterable, as a list, a data set or a DataLoader; it is a "
        f"{type(data).__name__}"
    )


def ids_of(batch: Any, id: Id, numbers: Sequence[int]) -> list[str | int]:
    """The ids of the examples of a batch."""
    if id is None:
        return [*numbers]
    examples = by_example(batch) if isinstance(batch, Mapping) else batch
    found = []
    for number, example in zip(numbers, examples, strict=True):
        try:
            value = id(example) if callable(id) else example[id]
        except (KeyError, TypeError, IndexError):
            raise CaptureError(f"example {number} has no field {id!r}, which id= names") from None
        value = value.item() if hasattr(value, "item") else value
        if not isinstance(value, str | int):
            raise CaptureError(f"the id of example {number} must be a text or a whole number, not {value!r}")
        found.append(value)
    return found


def by_example(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Examples from a dict of their columns."""
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
