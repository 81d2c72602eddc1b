"""A unit of work on its way to the disk: its data files, then its record."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hookline.capturing.block import Block, Kind
from hookline.capturing.data_file import contents
from hookline.capturing.folder import Folder
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

    def points(self) -> dict[str, Kind]:
        """The kind of the rows of each point; CaptureError where its batches differ."""
        return {point: kind_of(point, blocks) for point, blocks in self.blocks().items()}

    def write(self, folder: Folder, *, largest: int = LARGEST) -> bool:
        """Write the data, then the record; False where another process has done this unit."""
        points = {}
        for place, (point, blocks) in enumerate(self.blocks().items()):
            shape, dtype = kind_of(point, blocks)
            files: list[dict[str, Any]] = []
            for part, content in enumerate(contents(blocks, largest)):
                name = f"data/{self.name}.{place}{f'-{part}' if part else ''}.{content.digest()}.safetensors"
                folder.put(name, content.pieces())
                files.append(
                    {"name": name, "bytes": content.nbytes, "examples": content.examples, "rows": content.rows}
                )
            points[point] = {
                "dtype": dtype,
                "shape": [*shape],
                "rows": sum(file["rows"] for file in files),
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


def points_of(record: Mapping[str, Any]) -> dict[str, Kind]:
    """The kind of the rows of each point in a record."""
    return {point: (tuple(told["shape"]), told["dtype"]) for point, told in record.get("points", {}).items()}


def expect_same(theirs: Mapping[str, Kind], ours: Mapping[str, Kind]) -> None:
    """CaptureError where two units differ in their points, or in the kind of their rows."""
    if theirs.keys() != ours.keys():
        raise CaptureError(f"one batch gives {[*theirs]}, another {[*ours]}: every batch must give the same")
    for point, kind in ours.items():
        expect_one(point, [theirs[point], kind])


def kind_of(point: str, blocks: Sequence[Block]) -> Kind:
    """The kind of the rows of several batches; CaptureError where they differ."""
    kinds = [*dict.fromkeys(block.kind for block in blocks)]
    expect_one(point, kinds)
    return kinds[0]


def expect_one(point: str, kinds: Sequence[Kind]) -> None:
    """CaptureError where there are two kinds of rows."""
    first, last = kinds[0], kinds[-1] if len(kinds) < 2 else kinds[1]
    if first != last:
        raise CaptureError(
            f"{point!r} gives rows of shape {[*first[0]]}, {first[1]}, in one batch and {[*last[0]]}, {last[1]}, in "
            "another; where examples differ in length, rows=hookline.rows(mask=...) makes each position a row; dtype= "
            "makes them one"
        )
