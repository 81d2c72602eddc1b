"""Capture: the activations of a data set, read from the folder that `hookline.capture` fills."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hookline.capturing.folder import OURS, Folder
from hookline.capturing.point import Point
from hookline.errors import StoreError
from hookline.messages import counted, dtype_name
from hookline.result import Result
from hookline.store.file import on_disk
from hookline.store.folder import FORMAT
from hookline.store.opening import path_of, reason
from hookline.store.place import put_in_place
from hookline.store.staging import staging

if TYPE_CHECKING:
    import datasets
    from torch import dtype as dtype_of_torch

    from hookline.capturing.dataset import RowDataset

VERSION = 1  # of the format


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
        folder: Folder,
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
        return [id for number in self.records for id in self.ids_of(number)]

    def ids_of(self, unit: int) -> Sequence[str | int]:
        """The ids of the examples of a unit. Where they are not numbers they are read when they are asked for: there
        may be many."""
        record = self.records[unit]
        if record["ids"] is None:
            return list(read_record(self.folder, unit)["ids"])
        return list(record["ids"])

    def ids_by_number(self) -> dict[int, str | int]:
        """The id of each example that is captured, by its number."""
        return {
            number: id
            for unit, record in self.records.items()
            for number, id in enumerate(self.ids_of(unit), int(record["start"]))
        }

    @property
    def examples(self) -> int:
        """How many examples there are: of the data set, or of a stream as far as it is known."""
        if self._count is not None:
            return self._count
        last = next(reversed(self.records.values()), None)
        return 0 if last is None else int(last["start"]) + int(last["examples"])

    @property
    def captured(self) -> int:
        """How many examples are captured: those of all units that are done, without the skipped ones."""
        return sum(int(record["examples"]) for record in self.records.values()) - len(self.skipped)

    @property
    def missing(self) -> list[int]:
        """The units that nobody has done yet."""
        return [number for number in range(-(-self.examples // self.unit)) if number not in self.records]

    def damaged(self, *, content: bool = False) -> list[int]:
        """The units of which a data file is missing, or is not as long as the record says. `hookline.capture`, called
        again, does them anew.

        - `content`: also read every file, and list those whose bytes are not those that were written. Remove such a
          file, and the next capture writes it again.
        """
        there = self.folder.sizes("data")

        def is_whole(file: Mapping[str, Any]) -> bool:
            name = str(file["name"]).removeprefix("data/")
            if there.get(name) != file["bytes"]:
                return False
            return not content or sha256(self.folder.read(file["name"]) or b"").hexdigest()[:12] == name.split(".")[2]

        return [
            number
            for number, record in self.records.items()
            if not all(is_whole(file) for point in record["points"].values() for file in point["files"])
        ]

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

    def __bool__(self) -> bool:
        """Whether anything is captured."""
        return any(record["points"] for record in self.records.values())

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Copy the capture to another folder, whole or not at all; a capture that is there is replaced.

        Raises StoreError where the folder holds something else or cannot be written.
        """
        target = path_of(folder)
        try:
            refuse_others(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            with staging(target) as beside:
                fresh = beside / "fresh"
                self._copy(fresh)
                put_in_place(fresh, target, lambda: refuse_others(target))
        except OSError as error:
            raise StoreError(f"cannot save to {target}: {reason(error)}") from error

    def _copy(self, fresh: Path) -> None:
        """What the records name, in a new folder."""
        names = ["capture.json", *(unit_name(number) for number in self.records), *sorted(self.files)]
        if self.folder.read("end.json") is not None:
            names.append("end.json")
        for within in ("units", "data"):
            (fresh / within).mkdir(parents=True)
        for name in names:
            shutil.copyfile(self.folder.local(name), fresh / name)
            on_disk(fresh / name)
        on_disk(fresh / "units", fresh / "data", fresh)

    def to_dict(self) -> dict[str, Any]:
        """The header and what the points hold, as plain data."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "signature": dict(self.signature),
            "versions": dict(self.versions),
            "points": [self._row(point) for point in self._points.values()],
            "missing": self.missing,
            "skipped": {str(number): why for number, why in self.skipped.items()},
        }

    def torch(
        self,
        point: str | Sequence[str] | None = None,
        *,
        batch: int = 4096,
        shuffle: bool = True,
        seed: int = 0,
        buffer: int = 2**28,
        block: int = 2**21,
    ) -> "RowDataset":
        """The rows as batches for training: a torch `IterableDataset` of tensors [batch, ...], every row once a pass.

        - `point`: the path of a point; a list of paths gives dicts of tensors, whose rows match one to one. It can be
          left out where there is only one.
        - `batch`: rows in a batch; the last one has what is left.
        - `shuffle`, `seed`: shuffled, the order depends on the seed and on `dataset.set_epoch(epoch)`.
        - `buffer`: bytes that are held at most, besides the batches; the more, the better the rows are mixed.
        - `block`: bytes that are read in one piece; of a capture in an object store a whole file.

        In a DataLoader give `batch_size=None`: the batches are made already. Workers and ranks share the rows.

        Raises ArgumentError where the rows of two points do not match.

        >>> import tempfile, torch, hookline
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8)).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     acts = hookline.capture(model, torch.randn(100, 4), "0", to=folder, progress=False)
        ...     [batch.shape for batch in acts.torch(batch=40)]
        [torch.Size([40, 8]), torch.Size([40, 8]), torch.Size([20, 8])]
        """
        from hookline.capturing.dataset import dataset_of, points_of

        points, several = points_of(point, self._points)
        return dataset_of(
            self.folder, points, several=several, batch=batch, shuffle=shuffle, seed=seed, buffer=buffer, block=block
        )

    def datasets(
        self, point: str | Sequence[str] | None = None, *, dtype: "dtype_of_torch | None" = None
    ) -> "datasets.Dataset":
        """The rows as a `datasets.Dataset` of Hugging Face, whose values lie in the mapped files and are not copied.

        Columns: one for each point, by its path; `example`, its number, `id`, and `position` and `token` where there
        are these. It holds the files mapped for as long as it lives; `save_to_disk` writes them as Arrow files.

        - `point`: a path or a list of paths, by default all; their rows match one to one.
        - `dtype`: converts the values, which copies them: needed for bfloat16 and float8, which Arrow lacks.

        Raises ArgumentError for a dtype that Arrow lacks, and where the rows of two points do not match; ImportError
        where the library is missing: `pip install 'hookline[datasets]'`.
        """
        from hookline.capturing.arrow import dataset_of
        from hookline.capturing.dataset import points_of

        points, _ = points_of([*self._points] if point is None else point, self._points)
        return dataset_of(self, points, dtype)

    def _entries(self) -> Sequence[Point]:
        return [*self._points.values()]

    def _row(self, entry: Point, /) -> Mapping[str, Any]:
        return {
            "path": entry.path,
            "type": entry.type,
            "examples": len(entry),
            "rows": entry.rows,
            "shape": [*entry.shape],
            "dtype": dtype_name(entry.dtype),
            "bytes": entry.nbytes,
        }


def refuse_others(target: Path) -> None:
    """StoreError where a folder holds anything but a capture."""
    if not os.path.lexists(target):
        return
    found = {*os.listdir(target)} if target.is_dir() else {""}
    ours = {name for name in found if name in OURS or name.startswith(".")}
    if found and (found != ours or "capture.json" not in found):
        raise StoreError(f"{target} exists and is not a saved capture; give another folder, or remove it")


def unit_name(number: int) -> str:
    """The record of a unit."""
    return f"units/{number:06}.json"


def read_record(folder: Folder, number: int) -> dict[str, Any]:
    """The record of a unit, with all its ids."""
    record = json.loads(folder.read(unit_name(number)) or b"")
    return dict(record)


def short_record(folder: Folder, name: str) -> dict[str, Any]:
    """The record of a unit as it is kept in memory: with its ids only where they are numbers."""
    record = json.loads(folder.read(f"units/{name}") or b"")
    numbers = range(int(record["start"]), int(record["start"]) + int(record["examples"]))
    record["ids"] = numbers if record["ids"] == [*numbers] else None
    return dict(record)


def open_capture(folder: Folder) -> Capture:
    """What a folder holds; StoreError where that is no capture."""
    content = folder.read("capture.json")
    if content is None:
        raise StoreError(f"{folder} holds no capture: there is no capture.json")
    try:
        header = json.loads(content)
        if header["format"] != FORMAT or header["version"] != VERSION:
            told = f"{header['format']!r} {header['version']!r}"
            raise StoreError(
                f"{folder} has format {told}, and this hookline reads {FORMAT!r} {VERSION}; update hookline"
            )
        records = {}
        for name in folder.names("units"):
            record = short_record(folder, name)
            records[int(record["unit"])] = record
        end = folder.read("end.json")
        return Capture(folder, header, records, None if end is None else int(json.loads(end)["examples"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{folder} is damaged: {type(error).__name__}: {error}") from error
