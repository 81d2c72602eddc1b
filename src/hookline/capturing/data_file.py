"""A data file of a capture on its way to the disk: rows of several batches, in the form of safetensors.

`safetensors.torch.save` takes whole tensors and makes bytes of them, which copies every row three times. Here the rows
stay where the batches left them, and are written from there.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from hookline.capturing.block import Block
from hookline.errors import CaptureError
from hookline.messages import dtype_name
from hookline.model.memory import memory_of

NAMES = {  # what safetensors calls a dtype
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a data file: some examples of one point.

    - `head`: what comes before the tensors; `tensors`: these, each contiguous, in the order of the file;
    - `examples`, `rows`: how many it has.
    """

    head: bytes
    tensors: Sequence[Tensor]
    examples: int
    rows: int

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The bytes, in pieces that are not copied."""
        yield self.head
        for tensor in self.tensors:
            yield memory_of(tensor)

    @property
    def nbytes(self) -> int:
        """How long the file is."""
        return len(self.head) + sum(tensor.nbytes for tensor in self.tensors)

    def digest(self) -> str:
        """What the file is named by."""
        found = hashlib.sha256()
        for piece in self.pieces():
            found.update(piece)
        return found.hexdigest()[:12]


def contents(blocks: Sequence[Block], largest: int) -> list[Content]:
    """Blocks of examples that follow on one another as files of at most so many bytes, cut between examples."""
    beside = [name for name in ("positions", "tokens") if all(getattr(block, name) is not None for block in blocks)]
    return [_content(own, beside) for own in _cut(blocks, largest)]


def _cut(blocks: Sequence[Block], largest: int) -> Iterator[list[Block]]:
    """The blocks of each file."""
    row = max(1, next((block.values[:1].nbytes for block in blocks if len(block.values)), 1)) + 8
    own: list[Block] = []
    rows = examples = 0
    for block in blocks:
        begin = 0
        for place, count in enumerate(block.counts):
            if rows and (rows + count) * row + 16 * (examples + 1) > largest:
                yield [*own, block.part(begin, place)]
                own, begin, rows, examples = [], place, 0, 0
            rows, examples = rows + count, examples + 1
        own.append(block.part(begin, len(block.counts)))
    yield own


def _content(blocks: Sequence[Block], beside: Sequence[str]) -> Content:
    """Some blocks as one file."""
    counts = [count for block in blocks for count in block.counts]
    offsets = [0, *accumulate(counts)]
    tensors = {"values": [block.values.contiguous() for block in blocks], "offsets": [torch.tensor(offsets)]}
    for name in beside:
        tensors[name] = [getattr(block, name).contiguous() for block in blocks]
    order = sorted(tensors, key=lambda name: (-tensors[name][0].itemsize, name))  # so that each begins at its own size
    header: dict[str, Any] = {}
    at = 0
    for name in order:
        parts = tensors[name]
        size = sum(part.nbytes for part in parts)
        header[name] = {
            "dtype": _name_of(parts[0].dtype),
            "shape": [sum(map(len, parts)), *parts[0].shape[1:]],
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    flat = [part for name in order for part in tensors[name]]
    return Content(len(text).to_bytes(8, "little") + text, flat, len(counts), offsets[-1])


def _name_of(dtype: torch.dtype) -> str:
    try:
        return NAMES[dtype]
    except KeyError:
        raise CaptureError(f"a file cannot hold {dtype_name(dtype)}; give dtype=, or keep= a function") from None
