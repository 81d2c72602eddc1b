"""Sums of a tensor that merge exactly, and the figures that follow from them."""

import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from hookline.model.sharded import local_part
from hookline.record.statistics import ROW, elements, is_traced, unseen

COLUMNS = ("count", "sum", "squares", "fourths", "zeros", "unfinite", "absmax")
"""The sums of a tensor, a column each. Those of parts add up to those of the whole; `absmax`, the last one, is the
largest of theirs."""
Columns: TypeAlias = Mapping[str, Tensor]
PIECE = 2**17  # elements that are read at once on the CPU

FIGURES: Mapping[str, Callable[[Columns], Tensor]] = {
    "mean": lambda of: of["sum"] / of["count"],
    "std": lambda of: (of["squares"] / of["count"] - (of["sum"] / of["count"]).square()).clamp(min=0).sqrt(),
    "rms": lambda of: (of["squares"] / of["count"]).sqrt(),
    "norm": lambda of: of["squares"].sqrt(),
    "absmax": lambda of: of["absmax"],
    "kurtosis": lambda of: of["count"] * of["fourths"] / of["squares"].square(),
    "zeros": lambda of: of["zeros"] / of["count"],
    "unfinite": lambda of: of["unfinite"],
}
"""Each figure as a function of the columns: tensors of one number for each row. A figure of nothing is NaN."""


def columns_for(figures: Sequence[str]) -> frozenset[str]:
    """The columns that some figures need. The others of a row are NaN."""
    needs = {"mean": {"sum"}, "std": {"sum", "squares"}, "kurtosis": {"squares", "fourths"}, "zeros": {"zeros"}}
    return frozenset({"count", "unfinite", "absmax"}).union(*(needs.get(each, {"squares"}) for each in figures))


def sums_of(tensor: Tensor, less: Tensor | None = None, *, columns: Collection[str] = COLUMNS) -> Tensor | None:
    """COLUMNS of the elements of a tensor, or of its difference to another one (`less`): [7], on its device, in float64
    where the device has it.

    None for a tensor without elements to read. Of a distributed tensor they are of the part in this process. Columns
    that are not asked for are NaN.

    >>> sums_of(torch.tensor([1.0, -2.0, 0.0])).tolist()
    [3.0, -1.0, 5.0, 17.0, 1.0, 0.0, 2.0]
    """
    tensor = local_part(tensor)
    if is_traced(tensor):
        return None
    with unseen(tensor), torch.no_grad():
        values = elements(tensor.detach()).reshape(-1)
        other = None if less is None else elements(less).reshape(-1)
        if values.is_meta:
            return None
        if values.device.type != "cpu":
            return _on_device(values if other is None else values - other, columns)
        return torch.tensor(_in_pieces(values, other, columns), dtype=torch.float64)


def _in_pieces(values: Tensor, less: Tensor | None, columns: Collection[str]) -> list[float]:
    """The columns of a tensor on the CPU, piece by piece: what is read several times is in the processor's cache."""
    count = values.numel()
    zero = [0.0 if name in columns else math.nan for name in COLUMNS]
    found = dict(zip(COLUMNS, zero, strict=True))
    buffers = _buffers(values.dtype)
    for begin in range(0, count, PIECE):
        piece = values[begin : begin + PIECE]
        if less is not None:
            piece = torch.sub(piece, less[begin : begin + PIECE], out=buffers[1][: len(piece)])
        _add(found, piece, buffers[0][: len(piece)], columns)
    found["count"] = count
    return [float(found[name]) for name in COLUMNS]


def _add(found: dict[str, float], piece: Tensor, buffer: Tensor, columns: Collection[str]) -> None:
    """Add the columns of a piece."""
    largest = max(float(piece.amax()), -float(piece.amin()))
    if not math.isfinite(largest):
        found["unfinite"] += len(piece) - int(torch.isfinite(piece).sum())
    found["absmax"] = largest if math.isnan(largest) else max(found["absmax"], largest)
    if "sum" in columns:
        found["sum"] += float(piece.sum())
    if "fourths" in columns or "zeros" in columns:
        squares = torch.mul(piece, piece, out=buffer)
        found["squares"] += float(squares.sum())
        if "fourths" in columns:
            found["fourths"] += float(squares.dot(squares))
        if "zeros" in columns and not squares.amin() > 0:  # a product that is 0 may be that of small factors
            found["zeros"] += len(piece) - int(torch.count_nonzero(piece))
    elif "squares" in columns:
        found["squares"] += float(piece.dot(piece))


_own = threading.local()


def _buffers(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Memory for two pieces, which a thread uses again and again."""
    made: dict[torch.dtype, tuple[Tensor, Tensor]] = _own.__dict__.setdefault("buffers", {})
    if dtype not in made:
        made[dtype] = torch.empty(PIECE, dtype=dtype), torch.empty(PIECE, dtype=dtype)
    return made[dtype]


def _on_device(values: Tensor, columns: Collection[str]) -> Tensor:
    """The columns of a tensor on another device, which nothing waits for."""
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    count = values.numel()
    if not count:
        return torch.zeros(len(COLUMNS), dtype=wide, device=values.device)
    nothing = values.new_full((), math.nan)
    parts = (
        values.new_full((), count, dtype=wide),
        values.sum(dtype=wide) if "sum" in columns else nothing,
        squares(values) if "squares" in columns else nothing,
        squares(values * values) if "fourths" in columns else nothing,
        count - torch.count_nonzero(values) if "zeros" in columns else nothing,
        count - torch.isfinite(values).sum(),
        torch.linalg.vector_norm(values, ord=math.inf),
    )
    return torch.stack([part.to(wide) for part in parts])


def squares(values: Tensor) -> Tensor:
    """The sum of squares of a flat tensor; by rows, since PyTorch sums the squares of a float32 tensor in float32."""
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    whole = values.numel() - values.numel() % ROW
    rows = torch.linalg.vector_norm(values[:whole].view(-1, ROW), dim=1).to(wide)
    rest = torch.linalg.vector_norm(values[whole:]).to(wide)
    total: Tensor = (rows * rows).sum() + rest * rest
    return total


def figures_of(table: Tensor, figures: Sequence[str], columns: Sequence[str] = COLUMNS) -> Tensor:
    """The figures of a table of sums [rows, columns]: [rows, figures]. One that is not in FIGURES is a column of its
    own, of which it is the mean over "tensors"."""
    of = dict(zip(columns, table.unbind(1), strict=True))
    found = [FIGURES[name](of) if name in FIGURES else of[name] / of["tensors"] for name in figures]
    return torch.stack(found, 1) if found else table.new_zeros(len(table), 0)
