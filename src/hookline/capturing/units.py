"""A unit of work on its way to the disk: its data files, then its record."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from hookline.capturing.folder import Folder, digest
from hookline.capturing.gather import Block, joined
from hookline.errors import CaptureError

LARGEST = 2**31 - 2**16  # bytes of a data file; what is over goes into another file


@dataclass(slots=True)
class Unit:
    """The rows of a contiguous range of examples.

    - `number`; `start`: the number of its first example; `ids`: of each example;
    - `skipped`: what went wrong, by the number of the example;
    - `batches`: the rows of each point in each batch; of one that was skipped whole, how many examples it had.
    """

    number: int
    start: int
    ids: list[str | int] = field(default_factory=list)
    skipped: dict[int, str] = field(default_factory=dict)
    batches: list[dict[str, Block] | int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.number:06}"

    def blocks(self) -> dict[str, list[Block]]:
        """The rows of each point, batch by batch."""
        first = next((batch for batch in self.batches if not isinstance(batch, int)), None)
        if first is None:
            return {}
        for batch in self.batches:
            if not isinstance(batch, int) and batch.keys() != first.keys():
                raise CaptureError(f"one batch gives {[*first]}, another {[*batch]}: every batch must give the same")
        return {
            point: [Block.empty(block, batch) if isinstance(batch, int) else batch[point] for batch in self.batches]
            for point, block in first.items()
        }

    def points(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """The shape of a row and the dtype of each point; CaptureError where its batches differ."""
        joint = {point: joined_or_error(point, [*blocks]) for point, blocks in self.heads().items()}
        return {point: (tuple(block.values.shape[1:]), dtype_name(block)) for point, block in joint.items()}

    def heads(self) -> dict[str, list[Block]]:
        """The blocks without their rows."""
        return {point: [block.empty(0) for block in blocks] for point, blocks in self.blocks().items()}

    def write(self, folder: Folder, *, largest: int = LARGEST) -> bool:
        """Write the data, then the record; False where another process has done this unit."""
        points = {}
        for place, (point, blocks) in enumerate(self.blocks().items()):
            block = joined_or_error(point, blocks)
            files = []
            for part, content in enumerate(contents(block, largest)):
                name = f"data/{self.name}.{place}{f'-{part}' if part else ''}.{digest(content)}.safetensors"
                folder.put(name, content)
                files.append({"name": name, "bytes": len(content)})
            points[point] = {
                "dtype": dtype_name(block),
                "shape": [*block.values.shape[1:]],
                "rows": len(block.values),
                "files": files,
            }
        record = {
            "unit": self.number,
            "start": self.start,
            "examples": len(self.ids),
            "ids": self.ids,
            "skipped": {str(number): why for number, why in sorted(self.skipped.items())},
            "points": points,
        }
        return folder.commit(f"units/{self.name}.json", json.dumps(record, allow_nan=False).encode())


def dtype_name(block: Block) -> str:
    """The dtype of a block, as a record names it."""
    return str(block.values.dtype).removeprefix("torch.")


def points_of(record: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """The shape of a row and the dtype of each point in a record."""
    return {point: (tuple(told["shape"]), told["dtype"]) for point, told in record.get("points", {}).items()}


def expect_same(
    theirs: Mapping[str, tuple[tuple[int, ...], str]], ours: Mapping[str, tuple[tuple[int, ...], str]]
) -> None:
    """CaptureError where two units differ in their points, in the shape of a row, or in the dtype."""
    if theirs.keys() != ours.keys():
        raise CaptureError(f"one batch gives {[*theirs]}, another {[*ours]}: every batch must give the same")
    for point, (shape, dtype) in ours.items():
        if theirs[point] != (shape, dtype):
            raise CaptureError(differing(point, theirs[point], (shape, dtype)))


def differing(point: str, one: tuple[tuple[int, ...], str], other: tuple[tuple[int, ...], str]) -> str:
    """What to do about rows of two kinds."""
    return (
        f"{point!r} gives rows of shape {[*one[0]]}, {one[1]}, in one batch and {[*other[0]]}, {other[1]}, in another; "
        "where examples differ in length, rows=hookline.rows(mask=...) makes each position a row; dtype= makes them one"
    )


def joined_or_error(point: str, blocks: list[Block]) -> Block:
    """The rows of a unit; CaptureError where those of one batch have another shape than those of the next."""
    kinds = [*dict.fromkeys((tuple(block.values.shape[1:]), dtype_name(block)) for block in blocks)]
    if len(kinds) > 1:
        raise CaptureError(differing(point, kinds[0], kinds[1]))
    return joined(blocks)


def contents(block: Block, largest: int) -> list[bytes]:
    """A block as files of at most so many bytes, cut between examples."""
    row = max(1, block.values[:1].nbytes) + 8
    found, begun, rows = [], 0, 0
    for place, count in enumerate(block.counts):
        if rows and (rows + count) * row + 16 * (place - begun + 1) > largest:
            found.append((begun, place))
            begun, rows = place, 0
        rows += count
    found.append((begun, len(block.counts)))
    offsets = torch.tensor([0, *block.counts]).cumsum(0)
    return [_content(block, offsets, begin, end) for begin, end in found]


def _content(block: Block, offsets: Tensor, begin: int, end: int) -> bytes:
    """Some examples of a block as a file of safetensors."""
    own = slice(int(offsets[begin]), int(offsets[end]))
    tensors: dict[str, Any] = {
        "values": block.values[own].contiguous(),
        "offsets": offsets[begin : end + 1] - offsets[begin],
    }
    if block.positions is not None:
        tensors["positions"] = block.positions[own].contiguous()
    if block.tokens is not None:
        tensors["tokens"] = block.tokens[own].contiguous()
    return save(tensors)
