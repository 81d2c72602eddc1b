"""Capture: the activations of a data set, read from the folder that `hookline.capture` fills."""

import json
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, overload

import torch
from safetensors import safe_open
from torch import Tensor

from hookline.capturing.folder import LocalFolder
from hookline.errors import CaptureError, StoreError
from hookline.messages import counted
from hookline.result import Result

OPEN = 64  # data files that are mapped at once
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Part:
    """Some examples of one point in one data file, mapped into memory: nothing is read before it is used.

    - `start`: the number of the first example; `offsets`: where the rows of each begin in `values`.
    """

    start: int
    offsets: Tensor
    values: Tensor
    positions: Tensor | None
    tokens: Tensor | None

    def of(self, example: int) -> slice:
        """Where the rows of an example are."""
        place = example - self.start
        return slice(int(self.offsets[place]), int(self.offsets[place + 1]))


class Point:
    """The rows of one captured module, example by example.

    - `point[123]`: the rows of example 123, [rows, ...], mapped into memory; without `rows=`, its value as it was;
      negative numbers count from the end; a list, a range or a slice gives a list of these;
    - `len(point)`: examples; `rows`: rows in all; `shape`: of a row; `dtype`;
    - `positions(123)`, `tokens(123)`: where in its example each row was, and the token id there.
    """

    def __init__(self, capture: "Capture", path: str) -> None:
        self._capture, self.path = capture, path
        self._mapped: OrderedDict[str, Part] = OrderedDict()

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
        if not hasattr(example, "__index__"):
            return [self[each] for each in example]
        part, own = self._at(example.__index__())
        values = part.values[own]
        return values if self._capture.has_rows else values[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[example] for example in range(len(self)) if example not in self._capture.skipped)

    def positions(self, example: int) -> Tensor:
        """Where in its example each row was: [rows]."""
        part, own = self._at(example)
        if part.positions is None:
            raise CaptureError(f"{self.path!r} was captured without rows=: an example is one row")
        return part.positions[own]

    def tokens(self, example: int) -> Tensor:
        """The token id at each row: [rows]."""
        part, own = self._at(example)
        if part.tokens is None:
            raise CaptureError(f"{self.path!r} has no token ids: the model received no input_ids of these positions")
        return part.tokens[own]

    def parts(self) -> Iterator[Part]:
        """All of its data, in order, a file at a time, mapped into memory."""
        for number, told in self._told():
            for place in range(len(told["files"])):
                yield self._part(number, place)

    def numpy(self) -> Any:
        """All rows as one numpy array, copied: [rows, ...]. bfloat16 and float8, which numpy lacks, become float32."""
        import numpy

        arrays = [as_numpy(part.values) for part in self.parts()]
        return numpy.concatenate(arrays) if arrays else numpy.zeros((0, *self.shape), numpy.float32)

    def _told(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """What the records tell of this point, by unit."""
        for number, record in self._capture.records.items():
            if self.path in record["points"]:
                yield number, record["points"][self.path]

    def _at(self, example: int) -> tuple[Part, slice]:
        """The part that has an example, and where in it."""
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
        files = self._capture.records[number]["points"][self.path]["files"]
        for place in range(len(files)):
            part = self._part(number, place)
            if part.start <= example < part.start + len(part.offsets) - 1:
                return part, part.of(example)
        raise CaptureError(f"{self.path!r} has no rows of example {example}")

    def _part(self, number: int, place: int) -> Part:
        """A data file of a unit, mapped."""
        record = self._capture.records[number]
        files = record["points"][self.path]["files"]
        name = files[place]["name"]
        if name in self._mapped:
            self._mapped.move_to_end(name)
            return self._mapped[name]
        start = record["start"] if not place else self._end_of(number, place - 1)
        part = self._mapped[name] = mapped(self._capture.folder.local(name), start, files[place]["bytes"])
        if len(self._mapped) > OPEN:
            self._mapped.popitem(last=False)
        return part

    def _end_of(self, number: int, place: int) -> int:
        before = self._part(number, place)
        return before.start + len(before.offsets) - 1

    def __repr__(self) -> str:
        return f"<{self.path}: {counted(self.rows, 'row')} of {str(self.dtype).removeprefix('torch.')}{[*self.shape]}>"


class Capture(Result[Point]):
    """The activations of a data set, as `hookline.capture` writes them and `hookline.open` finds them.

    - `capture[path]`: a `Point`, the rows of one module; `capture[i]`, iteration and `len` go over the points;
    - `examples`: how many examples are captured; `ids`: their ids, in order; `skipped`: why, by number;
    - `missing`: the units that are not done yet, `finished` whether there are none.
    """

    noun: ClassVar[str] = "capture"
    entry: ClassVar[str] = "point"
    columns: ClassVar[Sequence[str]] = ("path", "type", "examples", "rows", "shape", "dtype", "bytes")

    def __init__(
        self,
        folder: LocalFolder,
        header: Mapping[str, Any],
        records: Mapping[int, Mapping[str, Any]],
        end: int | None = None,
    ) -> None:
        self.folder, self.records = folder, dict(sorted(records.items()))
        self.signature: Mapping[str, Any] = header["signature"]
        self.model: str = header["model"]
        self._count: int | None = self.signature["examples"] if end is None else end
        self.versions: Mapping[str, str] = header["versions"]
        self._points = {path: Point(self, path) for path in self._names()}

    def _names(self) -> list[str]:
        for record in self.records.values():
            if record["points"]:
                return [*record["points"]]
        return [*self.signature["points"]]

    @property
    def unit(self) -> int:
        """How many examples a unit has."""
        return int(self.signature["unit"])

    @property
    def has_rows(self) -> bool:
        """Whether an example has several rows: it was captured with `rows=`."""
        return self.signature["rows"] is not None

    @property
    def files(self) -> set[str]:
        """The names of all data files."""
        points = [point for record in self.records.values() for point in record["points"].values()]
        return {file["name"] for point in points for file in point["files"]}

    @cached_property
    def skipped(self) -> dict[int, str]:
        """Why an example was left out, by its number."""
        return {int(number): why for record in self.records.values() for number, why in record["skipped"].items()}

    @cached_property
    def ids(self) -> list[str | int]:
        """The ids of the examples that are captured, in order."""
        return [id for record in self.records.values() for id in record["ids"]]

    @property
    def examples(self) -> int:
        """How many examples there are: of the data set, or of a stream as far as it is known."""
        if self._count is not None:
            return self._count
        last = next(reversed(self.records.values()), None)
        return 0 if last is None else int(last["start"]) + int(last["examples"])

    @property
    def missing(self) -> list[int]:
        """The units that nobody has done yet."""
        return [number for number in range(-(-self.examples // self.unit)) if number not in self.records]

    @property
    def finished(self) -> bool:
        """Whether every unit is there; of a stream, whether its end is."""
        return self._count is not None and not self.missing

    @property
    def summary(self) -> str:
        """How much there is, in a line."""
        rows = sum(point.rows for point in self._points.values())
        size = sum(point.nbytes for point in self._points.values())
        left = f", {counted(len(self.missing), 'unit')} missing" if self.missing else ""
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"{self.model}: {counted(len(self._points), 'point')}, {counted(self.examples, 'example')}{skipped}, "
            f"{counted(rows, 'row')}, {size / 1e6:.1f} MB{left}"
        )

    def save(self, folder: Any) -> None:
        """Copy the capture to another folder, which must not exist."""
        try:
            shutil.copytree(self.folder.root, Path(folder), ignore=shutil.ignore_patterns("leases", ".*"))
        except FileExistsError:
            raise StoreError(f"cannot save to {folder}: it exists") from None

    def to_dict(self) -> dict[str, Any]:
        """The header and what the points hold, as plain data."""
        return {
            "format": FORMAT,
            "kind": "capture",
            "model": self.model,
            "signature": dict(self.signature),
            "versions": dict(self.versions),
            "points": [self._row(point) for point in self._points.values()],
            "missing": self.missing,
            "skipped": {str(number): why for number, why in self.skipped.items()},
        }

    def _entries(self) -> Sequence[Point]:
        return [*self._points.values()]

    def _row(self, entry: Point, /) -> Mapping[str, Any]:
        return {
            "path": entry.path,
            "type": entry.type,
            "examples": len(entry),
            "rows": entry.rows,
            "shape": [*entry.shape],
            "dtype": str(entry.dtype).removeprefix("torch."),
            "bytes": entry.nbytes,
        }


def mapped(path: Path, start: int, size: int) -> Part:
    """A data file, mapped into memory."""
    try:
        if path.stat().st_size != size:
            raise StoreError(f"{path} is damaged: it has {path.stat().st_size} bytes, its record says {size}")
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise StoreError(f"{path} is missing, which the record of its unit names") from None
    return Part(start, tensors["offsets"], tensors["values"], tensors.get("positions"), tensors.get("tokens"))


def as_numpy(values: Tensor) -> Any:
    """A tensor as an array; what numpy has no dtype for becomes float32."""
    try:
        return values.numpy()
    except TypeError:
        return values.float().numpy()


def open_capture(folder: LocalFolder) -> Capture:
    """What a folder holds; StoreError where that is no capture."""
    content = folder.read("capture.json")
    if content is None:
        raise StoreError(f"{folder} holds no capture: there is no capture.json")
    try:
        header = json.loads(content)
        if header.get("format") != FORMAT:
            raise StoreError(f"{folder} has format {header.get('format')!r}; this hookline reads {FORMAT}")
        records = {}
        for name in folder.names("units"):
            record = json.loads(folder.read(f"units/{name}") or b"")
            records[int(record["unit"])] = record
        end = folder.read("end.json")
        return Capture(folder, header, records, None if end is None else int(json.loads(end)["examples"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{folder} is damaged: {type(error).__name__}: {error}") from error
