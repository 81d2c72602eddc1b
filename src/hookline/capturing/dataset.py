"""RowDataset: the rows of a capture as batches for training, shuffled in bounded memory."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, BinaryIO, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from hookline.capturing.chance import chance
from hookline.capturing.files import opened_in, read_into, row_bytes, values_place, will_need
from hookline.capturing.folder import Folder, folder_of, is_url
from hookline.capturing.point import Point
from hookline.errors import ArgumentError
from hookline.messages import few
from hookline.model.sharded import rank_and_world

Range: TypeAlias = tuple[int, int]
"""Rows by number, the first and the one after the last."""
OPEN = 32  # files of a pass
LANES = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one point: which rows are where. It can be sent to another process.

    - `files`: name and size of each; `ends`: the row after its last one; `shape`, `dtype`: of a row.
    """

    files: Sequence[tuple[str, int]]
    ends: Sequence[int]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def row_bytes(self) -> int:
        """How many bytes a row has."""
        return row_bytes(self.shape, self.dtype)

    def empty(self, rows: int) -> Tensor:
        """Memory for so many rows."""
        return torch.empty(rows, *self.shape, dtype=self.dtype)


class RowDataset(IterableDataset[Any]):
    """The rows of a capture in batches, as `capture.torch()` makes it.

    Each pass gives every row once. A shuffled pass takes blocks of rows that follow on one another in a random order,
    and shuffles the rows of several blocks in a buffer. The order depends on `seed`, on the epoch of `set_epoch` and on
    how many processes share the rows. No random generator but its own is used. The rows are shared among the ranks of
    `torch.distributed` and the workers of a DataLoader: each gets as many as another, or one more.

    - `rows`: how many rows there are in all; `seed`; `epoch`.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        place: str,
        several: bool,
        batch: int,
        shuffle: bool,
        seed: int,
        buffer: int,
        block: int,
    ) -> None:
        for name, value in (("batch", batch), ("buffer", buffer), ("block", block)):
            if type(value) is not int or value < 1:
                raise ArgumentError(f"{name} must be a whole number from 1, not {value!r}")
        if type(seed) is not int:
            raise ArgumentError(f"seed must be a whole number, not {seed!r}")
        self.sources, self.place, self.several = dict(sources), place, several
        self.batch, self.shuffle, self.seed, self.buffer, self.block = batch, shuffle, seed, buffer, block
        self.rows = next(iter(self.sources.values())).ends[-1] if self.sources else 0
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers that live on see it change
        self._rank: Range | None = None

    @property
    def epoch(self) -> int:
        """The epoch, on which the order depends."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the passes that begin from now on."""
        self._epoch.fill_(epoch)

    def __getstate__(self) -> dict[str, Any]:
        """A worker process does not know the rank of the one that made it."""
        return {**self.__dict__, "_rank": self._place()}

    def __iter__(self) -> Iterator[Any]:
        (rank, world), worker = self._place(), get_worker_info()
        own = share((0, self.rows), rank, world)
        if worker is not None:
            own = share(own, worker.id, worker.num_workers)
        key = f"{self.seed} {self.epoch}"
        blocks = cut(self._order(key), own)
        return self._shuffled(blocks, key) if self.shuffle else self._in_order(blocks)

    def _place(self) -> Range:
        """The rank of this process, and how many there are."""
        rank, world = rank_and_world()
        if rank is not None and world is not None:
            return rank, world
        return self._rank or (0, 1)

    def _width(self) -> int:
        """How many bytes a row has in all points together."""
        return max(1, sum(source.row_bytes for source in self.sources.values()))

    def _order(self, key: str) -> list[Range]:
        """The blocks of all processes, in the order of an epoch."""
        size = max(1, self.block // self._width())
        blocks = [(begin, min(begin + size, self.rows)) for begin in range(0, self.rows, size)]
        if is_url(self.place):
            ends = next(iter(self.sources.values())).ends
            blocks = [(begin, end) for begin, end in pairwise((0, *ends)) if begin < end]
        if not self.shuffle:
            return blocks
        return [blocks[place] for place in torch.randperm(len(blocks), generator=chance(f"{key} blocks")).tolist()]

    # Passes

    def _in_order(self, blocks: Sequence[Range]) -> Iterator[Any]:
        """Batches that are read while the one before is used."""
        reader = Reader(self.place, self.sources)
        with closing(reader), ThreadPoolExecutor(1, "hookline rows") as thread:
            waiting = None
            for group in groups(blocks, self.batch):
                reading = thread.submit(reader.read, group, reader.empty(self.batch))
                if waiting is not None:
                    yield self._given(waiting.result())
                waiting = reading
            if waiting is not None:
                yield self._given(waiting.result())

    def _shuffled(self, blocks: Sequence[Range], key: str) -> Iterator[Any]:
        """Batches out of two buffers in turn: one is filled while the other is emptied."""
        reader = Reader(self.place, self.sources)
        size = max(1, self.buffer // 2 // self._width())
        parts = [*groups(blocks, size)]
        count = min(size, sum(end - begin for begin, end in blocks))
        buffers = [reader.empty(count) for _ in parts[:2]]
        batch, filled = reader.empty(self.batch), 0
        with closing(reader), ThreadPoolExecutor(1, "hookline rows") as thread:
            reading = [thread.submit(reader.read, group, buffers[place]) for place, group in enumerate(parts[:1])]
            for place, group in enumerate(parts):
                there = reading.pop().result()
                if place + 1 < len(parts):
                    reading.append(thread.submit(reader.read, parts[place + 1], buffers[(place + 1) % 2]))
                order = torch.randperm(len(next(iter(there.values()))), generator=chance(f"{key} {group[0][0]}"))
                while len(order):
                    taken, order = order[: self.batch - filled], order[self.batch - filled :]
                    for name, rows in there.items():
                        take(rows, taken, batch[name][filled : filled + len(taken)])
                    filled += len(taken)
                    if filled == self.batch:
                        yield self._given(batch)
                        batch, filled = reader.empty(self.batch), 0
        if filled:
            yield self._given({name: rows[:filled].clone() for name, rows in batch.items()})

    def _given(self, batch: dict[str, Tensor]) -> Any:
        return batch if self.several else next(iter(batch.values()))


class Reader:
    """Reads rows of several points into memory that is there, for one pass."""

    def __init__(self, place: str, sources: Mapping[str, Source]) -> None:
        self.folder, self.sources = folder_of(place), sources
        self.files: OrderedDict[str, tuple[BinaryIO, int]] = OrderedDict()  # with the place of the values in each

    def close(self) -> None:
        """Close all files."""
        while self.files:
            self.files.popitem()[1][0].close()

    def empty(self, rows: int) -> dict[str, Tensor]:
        """Memory for so many rows of each point."""
        return {name: source.empty(rows) for name, source in self.sources.items()}

    def read(self, group: Sequence[Range], into: dict[str, Tensor]) -> dict[str, Tensor]:
        """Read some ranges of rows, one after another; what was filled. The system knows all of them before the first
        is read, so that the disk works at many at once."""
        filled = {}
        for name, source in self.sources.items():
            for begin, end in group:
                for file, place, count in self._pieces(source, begin, end):
                    will_need(file, place, count * source.row_bytes)
            at = 0
            for begin, end in group:
                for file, place, count in self._pieces(source, begin, end):
                    read_into(file, place, into[name][at : at + count])
                    at += count
            filled[name] = into[name][:at]
        return filled

    def _pieces(self, source: Source, begin: int, end: int) -> Iterator[tuple[BinaryIO, int, int]]:
        """Where a range of rows lies: a file, a place in it, how many rows; then the next file."""
        while begin < end:
            number = bisect_right(source.ends, begin)
            first = source.ends[number - 1] if number else 0
            count = min(end, source.ends[number]) - begin
            file, values = self._opened(*source.files[number])
            yield file, values + (begin - first) * source.row_bytes, count
            begin += count

    def _opened(self, name: str, size: int) -> tuple[BinaryIO, int]:
        """A data file, and where its values begin."""
        if name in self.files:
            self.files.move_to_end(name)
            return self.files[name]
        file = opened_in(self.folder, name, size)
        found = self.files[name] = file, values_place(file, size)
        if len(self.files) > OPEN:
            self.files.popitem(last=False)[1][0].close()
        return found


def dataset_of(folder: Folder, points: Sequence[Point], *, several: bool, **options: Any) -> RowDataset:
    """The rows of some points in batches; ArgumentError for what cannot be."""
    matching(points)
    return RowDataset({point.path: source_of(point) for point in points}, place=str(folder), several=several, **options)


def source_of(point: Point) -> Source:
    """Which rows of a point are where."""
    files, counts = [], []
    for name, size, rows in point.lengths():
        files.append((name, size))
        counts.append(rows)
    return Source(files, [*accumulate(counts)], point.shape, point.dtype or torch.float32)


def matching(points: Sequence[Point]) -> None:
    """ArgumentError where the rows of two points are not the same ones."""
    first = points[0]
    for other in points[1:]:
        why = mismatch(first, other)
        if why is not None:
            raise ArgumentError(f"the rows of {first.path!r} and {other.path!r} do not match: {why}; read them apart")


def mismatch(one: Point, other: Point) -> str | None:
    """Why the rows of two points are not the same ones; None where they are."""
    if one.rows != other.rows:
        return f"{one.rows} and {other.rows}"
    for ours, theirs in zip(one.places(), other.places(), strict=True):
        differ = (ours.counts != theirs.counts).nonzero()
        if len(differ):
            return f"example {ours.start + int(differ[0])} has another number of them"
        if ours.positions is not None and theirs.positions is not None:
            differ = (ours.positions != theirs.positions).nonzero()
            if len(differ):
                example = ours.start + int((ours.counts.cumsum(0) <= int(differ[0])).sum())
                return f"those of example {example} are of other positions"
    return None


def points_of(wanted: Any, points: Mapping[str, Point]) -> tuple[list[Point], bool]:
    """The points that are asked for by a path, a list of paths, or None for the only one; and whether as a list."""
    if wanted is None:
        if len(points) != 1:
            raise ArgumentError(f"point= must say which of the points, or a list of them: {few([*points])}")
        wanted = next(iter(points))
    paths = [wanted] if isinstance(wanted, str) else [*wanted]
    if not paths:
        raise ArgumentError("point= must name a point, not none")
    for path in paths:
        if path not in points:
            raise ArgumentError(f"{path!r} is not in the capture; its points are {few([*points])}")
    return [points[path] for path in paths], not isinstance(wanted, str)


def share(whole: Range, place: int, count: int) -> Range:
    """One of `count` equal parts of a range."""
    begin, end = whole
    size = end - begin
    return begin + size * place // count, begin + size * (place + 1) // count


def cut(blocks: Sequence[Range], own: Range) -> list[Range]:
    """The part of blocks in a row that lies between two places, counted in rows from the first block."""
    found, at = [], 0
    for begin, end in blocks:
        first, last = max(begin, begin + own[0] - at), min(end, begin + own[1] - at)
        if first < last:
            found.append((first, last))
        at += end - begin
    return found


def groups(blocks: Sequence[Range], size: int) -> Iterator[list[Range]]:
    """Blocks in groups of `size` rows each; a block that does not fit is divided."""
    group: list[Range] = []
    room = size
    for begin, end in blocks:
        while begin < end:
            count = min(room, end - begin)
            group.append((begin, begin + count))
            begin, room = begin + count, room - count
            if not room:
                yield group
                group, room = [], size
    if group:
        yield group


def take(rows: Tensor, places: Tensor, out: Tensor) -> None:
    """Copy some rows. Rows are copied as whole numbers, since not every function knows every dtype."""
    if not out.nbytes:
        return
    size = rows.nbytes // len(rows)
    lane = LANES[next(width for width in (8, 4, 2, 1) if size % width == 0)]
    torch.index_select(as_lanes(rows, lane), 0, places, out=as_lanes(out, lane))


def as_lanes(rows: Tensor, lane: torch.dtype) -> Tensor:
    """Rows as vectors of whole numbers, in the same memory."""
    return rows.reshape(len(rows), -1).view(torch.uint8).view(lane)
