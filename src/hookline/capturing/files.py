"""One data file of a capture: where its tensors lie, some of their rows read, all of them mapped."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from hookline.capturing.folder import Folder
from hookline.errors import StoreError
from hookline.model.memory import memory_of
from hookline.store.opening import reason

LONGEST = 2**20  # bytes of a header
TRIES = 20


class MissingError(StoreError):
    """A data file is not there."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """Some examples of one point, as they lie in a file.

    - `folder`, `name`: the capture's, and the file in it; one of an object store is fetched when it is read;
    - `start`: the number of the first example; `offsets`: where the rows of each begin, and where the last ones end;
    - `places`: where each tensor begins in the file; `shape`, `dtype`: of a row.
    """

    folder: Folder
    name: str
    start: int
    offsets: Tensor
    places: Mapping[str, int]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def path(self) -> Path:
        """The file on this machine."""
        return self.folder.local(self.name)

    @property
    def examples(self) -> range:
        """The numbers of its examples."""
        return range(self.start, self.start + len(self.offsets) - 1)

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return int(self.offsets[-1])

    @property
    def first_value(self) -> int:
        """Where the values begin in the file."""
        return self.places["values"]

    def of(self, example: int) -> slice:
        """Where the rows of an example are."""
        place = example - self.start
        return slice(int(self.offsets[place]), int(self.offsets[place + 1]))

    def values(self, rows: slice) -> Tensor:
        """Some of the values, read into memory of their own."""
        found = torch.empty(rows.stop - rows.start, *self.shape, dtype=self.dtype)
        row = row_bytes(self.shape, self.dtype)
        with self._opened() as file:
            read_into(file, self.first_value + rows.start * row, found)
        return found

    def beside(self, name: str, rows: slice | None = None) -> Tensor | None:
        """The positions or token ids of some rows, or of all; None where there are none."""
        if name not in self.places:
            return None
        rows = rows or slice(0, self.rows)
        found = torch.empty(rows.stop - rows.start, dtype=torch.int32)
        with self._opened() as file:
            read_into(file, self.places[name] + rows.start * found.itemsize, found)
        return found

    def _opened(self) -> BinaryIO:
        return opened_in(self.folder, self.name)

    def mapped(self) -> Tensor:
        """All values, mapped into memory for as long as the tensor lives: nothing is read before it is used."""
        size = self.rows * row_bytes(self.shape, self.dtype)
        if not size:
            return torch.empty(self.rows, *self.shape, dtype=self.dtype)
        whole = torch.from_file(str(self.path), shared=False, size=self.first_value + size, dtype=torch.uint8)
        return whole[self.first_value :].view(self.dtype).view(self.rows, *self.shape)


def data_file(folder: Folder, file: Mapping[str, Any], start: int, told: Mapping[str, Any]) -> DataFile:
    """A data file of a point; StoreError where it is not as the record of its unit says."""
    name, size = file["name"], file["bytes"]
    dtype, shape = getattr(torch, told["dtype"]), tuple(told["shape"])
    with opened_in(folder, name, size) as content:
        path = Path(content.name)
        header, begin = header_of(content, path, size)
        found, sizes = {}, {}
        for part in ("values", "offsets", "positions", "tokens"):
            if part in header:
                first, last = header[part]["data_offsets"]
                found[part], sizes[part] = begin + first, last - first
        if not {"values", "offsets"} <= found.keys():
            raise StoreError(f"{path} is damaged: it has no values, or no offsets")
        offsets = torch.empty(sizes["offsets"] // 8, dtype=torch.int64)
        read_into(content, found["offsets"], offsets)
    rows = int(offsets[-1]) if len(offsets) == file["examples"] + 1 else -1
    wanted = {"values": row_bytes(shape, dtype), "positions": 4, "tokens": 4}
    if rows != file["rows"] or any(sizes[part] != rows * each for part, each in wanted.items() if part in sizes):
        raise StoreError(f"{path} is damaged: its tensors are not of the length that its offsets say")
    return DataFile(folder, name, start, offsets, found, shape, dtype)


def values_place(file: BinaryIO, size: int) -> int:
    """Where the values begin in a data file, which has just been opened."""
    header, begin = header_of(file, Path(file.name), size)
    return begin + int(header["values"]["data_offsets"][0])


def header_of(file: BinaryIO, path: Path, size: int) -> tuple[Mapping[str, Any], int]:
    """What a file of safetensors says of its tensors, and where these begin."""
    try:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size, LONGEST):
            raise ValueError("its header is too long")
        header: dict[str, Any] = json.loads(file.read(length))
        ends = [int(each["data_offsets"][1]) for name, each in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise StoreError(f"{path} is damaged: {error}") from None
    if 8 + length + max(ends, default=0) != size:
        raise StoreError(f"{path} is damaged: its header tells of another length")
    return header, 8 + length


def opened(path: Path, size: int | None = None) -> BinaryIO:
    """A file, to be read without a buffer; StoreError where it is missing or has another size."""
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115
        found = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise MissingError(f"{path} is missing, which the record of its unit names") from None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {reason(error)}") from error
    if size is not None and found != size:
        file.close()
        raise StoreError(f"{path} is damaged: it has {found} bytes, its record says {size}")
    return file


def opened_in(folder: Folder, name: str, size: int | None = None) -> BinaryIO:
    """The same for a file of a capture. The copy of one in a store may be gone before it is opened, where other threads
    read many; it is fetched again then."""
    for _ in range(TRIES):
        try:
            return opened(folder.local(name), size)
        except MissingError:
            continue
    return opened(folder.local(name), size)


def read_into(file: BinaryIO, place: int, tensor: Tensor) -> None:
    """Fill a contiguous tensor with the bytes at a place of a file."""
    if not tensor.nbytes:
        return
    left = memory_of(tensor)
    file.seek(place)
    while left:
        count = file.readinto(left)  # type: ignore[attr-defined]
        if not count:
            raise StoreError(f"{file.name} is damaged: it ends too early")
        left = left[count:]


def will_need(file: BinaryIO, place: int, size: int) -> None:
    """Tell the system that some bytes of a file are read soon."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), place, size, os.POSIX_FADV_WILLNEED)


def row_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """How many bytes a row has."""
    return torch.Size(shape).numel() * dtype.itemsize
