"""Point: the rows of one captured module, read from its files."""

import operator
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from hookline.capturing.files import DataFile, data_file
from hookline.errors import CaptureError
from hookline.messages import counted, dtype_name

if TYPE_CHECKING:
    import pandas

    from hookline.capturing.captured import Capture

OPEN = 64  # data files of which it is known where each example begins
PIECES = 32  # of a sample


@dataclass(frozen=True, slots=True)
class Places:
    """Of the examples of a unit, from number `start` on, how many rows each has, and the position of each row."""

    start: int
    counts: Tensor
    positions: Tensor | None


class Point:
    """The rows of one captured module, example by example.

    - `point[123]`: the rows of example 123, [rows, ...], read from the disk; without `rows=`, its value as it was;
      negative numbers count from the end; a list, a range, a slice, an array of numbers or of booleans gives a list;
    - `len(point)`: examples; `rows`: rows in all; `shape`: of a row; `dtype`;
    - `positions(123)`, `tokens(123)`: where in its example each row was, and the token id there;
    - `numpy()`, `to_pandas()`: all rows; `parts()`: all rows, a mapped file at a time.
    """

    def __init__(self, capture: "Capture", path: str) -> None:
        self._capture, self.path = capture, path
        self._known: OrderedDict[str, DataFile] = OrderedDict()

    @property
    def type(self) -> str:
        """The class of the module."""
        own = self._capture.signature["points"]
        return str(own.get(self.path) or own.get(self.path.rsplit("/", 1)[0], ""))

    @property
    def rows(self) -> int:
        """How many rows there are in all."""
        return sum(int(told["rows"]) for _, told in self._told())

    @property
    def nbytes(self) -> int:
        """How many bytes its files have."""
        return sum(int(file["bytes"]) for _, told in self._told() for file in told["files"])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a row."""
        return next((tuple(told["shape"]) for _, told in self._told()), ())

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype of the values; None where there are none yet."""
        return next((getattr(torch, told["dtype"]) for _, told in self._told()), None)

    def __len__(self) -> int:
        return self._capture.examples

    @overload
    def __getitem__(self, example: int) -> Tensor: ...
    @overload
    def __getitem__(self, example: slice | Sequence[int]) -> list[Tensor]: ...
    def __getitem__(self, example: Any) -> Any:
        if isinstance(example, slice):
            return [self[each] for each in range(len(self))[example]]
        if not hasattr(example, "__index__") or getattr(
            example, "ndim", False
        ):  # several; an array has `__index__` too
            return [self[each] for each in several(example, len(self))]
        file, own = self._at(operator.index(example))
        values = file.values(own)
        return values if self._capture.has_rows else values[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[example] for example in range(len(self)) if example not in self._capture.skipped)

    def positions(self, example: int) -> Tensor:
        """Where in its example each row was: [rows]."""
        file, own = self._at(example)
        found = file.beside("positions", own)
        if found is None:
            raise CaptureError(f"{self.path!r} was captured without rows=: an example is one row")
        return found

    def tokens(self, example: int) -> Tensor:
        """The token id at each row: [rows]."""
        file, own = self._at(example)
        found = file.beside("tokens", own)
        if found is None:
            raise CaptureError(f"{self.path!r} has no token ids: the model received no input_ids of these positions")
        return found

    def parts(self) -> Iterator[Tensor]:
        """All rows in order, a file at a time: tensors [rows, ...] that are mapped into memory for as long as they
        live."""
        return (file.mapped() for file in self.files())

    def numpy(self) -> Any:
        """All rows as one numpy array: [rows, ...].

        Where they are in one file and numpy has the dtype, the file is mapped into memory and nothing is copied; the
        array cannot be written to. Several files are copied into one array. bfloat16 and float8, which numpy lacks,
        become float32.
        """
        import numpy

        dtype = self.dtype
        if dtype is None:
            return numpy.zeros((0, *self.shape), numpy.float32)
        known = numpy_dtype(dtype)
        files = [*self.files()]
        if len(files) == 1 and known is not None and files[0].rows and 0 not in self.shape:
            (file,) = files
            place, shape = file.first_value, (file.rows, *file.shape)
            return numpy.memmap(file.path, known, mode="r", offset=place, shape=shape)
        whole: Any = numpy.empty((self.rows, *self.shape), known or numpy.float32)
        begin = 0
        for file in files:
            whole[begin : begin + file.rows] = as_numpy(file.mapped())
            begin += file.rows
        return whole

    def to_pandas(self) -> "pandas.DataFrame":
        """A data frame with a row for each row, copied: `example` (its number), `id`, `position` and `token` where
        there are these, and a column for each element of a row, by its number.

        Raises ImportError where pandas is missing: `pip install 'hookline[data]'`.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas() needs pandas: pip install 'hookline[data]'") from error
        values = self.numpy()
        columns = {name: tensor.numpy() for name, tensor in self.beside().items()}
        ids = self._capture.ids_by_number()
        labels: dict[str, Any] = {"example": columns.pop("example")}
        labels["id"] = [ids[number] for number in labels["example"].tolist()]
        flat = values.reshape(len(values), -1) if len(values) else values.reshape(0, torch.Size(self.shape).numel())
        return pandas.concat([pandas.DataFrame({**labels, **columns}), pandas.DataFrame(flat)], axis=1)

    def beside(self) -> dict[str, Tensor]:
        """What is known of each row: `example`, its number, and `position` and `token` where there are these."""
        found: dict[str, list[Tensor | None]] = {"example": [], "position": [], "token": []}
        for file in self.files():
            numbers = torch.arange(file.start, file.examples.stop)
            found["example"].append(numbers.repeat_interleave(file.offsets.diff()))
            found["position"].append(file.beside("positions"))
            found["token"].append(file.beside("tokens"))
        whole = {name: [part for part in parts if part is not None] for name, parts in found.items()}
        none = torch.zeros(0, dtype=torch.int64)
        return {
            name: torch.cat(parts) if parts else none
            for name, parts in whole.items()
            if name == "example" or (parts and len(parts) == len(found[name]))
        }

    def sample(self, count: int = 65536) -> Tensor:
        """About so many of the values, of pieces that are spread evenly over the rows: [values]."""
        files = [file for file in self._told_files() if file[2]["rows"]]
        chosen = [files[place * len(files) // PIECES] for place in range(PIECES)] if files else []
        pieces, seen = [], dict.fromkeys((number, place) for number, place, _ in chosen)
        for number, place in seen:
            file = self.file(number, place)
            if not file.rows:
                continue
            width = max(1, torch.Size(self.shape).numel())
            wanted = min(file.rows, -(-count // (len(seen) * width)))
            begin = (file.rows - wanted) // 2
            pieces.append(file.values(slice(begin, begin + wanted)).flatten())
        return torch.cat(pieces)[:count] if pieces else torch.zeros(0)

    # The files

    def files(self) -> Iterator[DataFile]:
        """Its data files in order."""
        return (self.file(number, place) for number, place, _ in self._told_files())

    def holding(self, example: int) -> DataFile | None:
        """The data file that has an example; None where none has."""
        number = example // self._capture.unit
        record = self._capture.records.get(number, {"points": {}, "start": 0})
        told = record["points"].get(self.path, {"files": ()})
        start = int(record["start"])
        for place, file in enumerate(told["files"]):
            if start <= example < start + file["examples"]:
                return self.file(number, place)
            start += file["examples"]
        return None

    def lengths(self) -> Iterator[tuple[str, int, int]]:
        """Name, size and number of rows of each data file. None is opened."""
        for _, told in self._told():
            for file in told["files"]:
                yield str(file["name"]), int(file["bytes"]), int(file["rows"])

    def places(self) -> Iterator["Places"]:
        """How many rows each example has, and where in it they are, unit by unit."""
        for number, told in self._told():
            files = [self.file(number, place) for place in range(len(told["files"]))]
            positions = [positions for file in files if (positions := file.beside("positions")) is not None]
            yield Places(
                files[0].start,
                torch.cat([file.offsets.diff() for file in files]),
                torch.cat(positions) if positions else None,
            )

    def file(self, number: int, place: int) -> DataFile:
        """One of the data files of a unit."""
        record = self._capture.records[number]
        told = record["points"][self.path]
        name = told["files"][place]["name"]
        known = self._known.get(name)
        if known is not None:
            with suppress(KeyError):  # another thread has forgotten it
                self._known.move_to_end(name)
            return known
        start = int(record["start"]) + sum(file["examples"] for file in told["files"][:place])
        found = self._known[name] = data_file(self._capture.folder, told["files"][place], start, told)
        with suppress(KeyError):
            while len(self._known) > OPEN:
                self._known.popitem(last=False)
        return found

    def _told(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """What the records say of this point, by unit."""
        for number, record in self._capture.records.items():
            if self.path in record["points"]:
                yield number, record["points"][self.path]

    def _told_files(self) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """Each file: its unit, its place there, and what the record says of the unit."""
        return ((number, place, told) for number, told in self._told() for place in range(len(told["files"])))

    def _at(self, example: int) -> tuple[DataFile, slice]:
        """The file that has an example, and where in it."""
        count = len(self)
        if not -count <= example < count:
            raise IndexError(f"the capture has {counted(count, 'example')}, and none at {example}")
        example %= count
        why = self._capture.skipped.get(example)
        if why is not None:
            raise CaptureError(f"example {example} was skipped: {why}")
        number = example // self._capture.unit
        if number not in self._capture.records:
            raise CaptureError(f"example {example} is not captured yet: unit {number} is missing")
        file = self.holding(example)
        if file is None:
            raise CaptureError(f"{self.path!r} has no rows of example {example}")
        return file, file.of(example)

    def __repr__(self) -> str:
        return f"<{self.path}: {counted(self.rows, 'row')} of {dtype_name(self.dtype)}{[*self.shape]}>"


def several(examples: Any, count: int) -> list[int]:
    """The numbers of several examples: a list, a range, an array, or a mask of one boolean for each example."""
    chosen = examples.tolist() if hasattr(examples, "tolist") else [*examples]
    if not isinstance(chosen, list):
        raise TypeError(f"examples are given by whole numbers, not by {examples!r}")
    if chosen and all(type(each).__name__ in ("bool", "bool_") for each in chosen):  # of Python or of numpy
        if len(chosen) != count:
            raise IndexError(f"a mask of {len(chosen)} for a capture of {counted(count, 'example')}")
        return [number for number, is_chosen in enumerate(chosen) if is_chosen]
    return [operator.index(each) for each in chosen]


def numpy_dtype(dtype: torch.dtype) -> Any:
    """What numpy calls a dtype; None where it has none."""
    try:
        return torch.zeros(0, dtype=dtype).numpy().dtype
    except TypeError:
        return None


def as_numpy(values: Tensor) -> Any:
    """A tensor as an array; dtypes that numpy lacks become float32."""
    try:
        return values.numpy()
    except TypeError:
        return values.float().numpy()
