"""Sums of a tensor that merge exactly, and the figures that follow from them."""

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from hookline.model.sharded import local_part
from hookline.record.statistics import ROW, elements, is_traced, unseen

COLUMNS = ("count", "sum", "squares", "fourths", "zeros", "unfinite", "absmax")
"""The sums of a tensor, a column each. Those of parts add up to those of the whole; `absmax`, the last one, is the
largest of theirs."""
Columns: TypeAlias = Mapping[str, Tensor]

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


def sums_of(tensor: Tensor, *, fourths: bool = True) -> Tensor | None:
    """COLUMNS of the elements of a tensor: [7], on its device, in float64 where the device has it.

    None for a tensor without elements to read. Of a distributed tensor they are of the part in this process. Without
    `fourths`, which only kurtosis needs, that column is NaN.

    >>> sums_of(torch.tensor([1.0, -2.0, 0.0])).tolist()
    [3.0, -1.0, 5.0, 17.0, 1.0, 0.0, 2.0]
    """
    tensor = local_part(tensor)
    if is_traced(tensor):
        return None
    with unseen(tensor), torch.no_grad():
        values = elements(tensor.detach()).reshape(-1)
        if values.is_meta:
            return None
        if values.device.type == "cpu":
            return torch.tensor(_at_once(values, fourths), dtype=torch.float64)
        return _on_device(values, fourths)


def _at_once(values: Tensor, fourths: bool) -> list[float]:
    """The columns of a tensor on the CPU."""
    count = values.numel()
    if not count:
        return [0.0] * len(COLUMNS)
    low, high = (bound.item() for bound in values.aminmax())
    largest = max(-low, high)
    zeros = count - int(torch.count_nonzero(values))
    unfinite = 0 if math.isfinite(largest) else count - int(torch.isfinite(values).sum())
    fourth = float(squares(values * values)) if fourths else math.nan
    return [count, float(values.sum()), float(squares(values)), fourth, zeros, unfinite, largest]


def _on_device(values: Tensor, fourths: bool) -> Tensor:
    """The columns of a tensor on another device, which nothing waits for."""
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    count = values.numel()
    if not count:
        return torch.zeros(len(COLUMNS), dtype=wide, device=values.device)
    nothing = values.new_full((), math.nan)
    parts = (
        values.new_full((), count),
        values.sum(dtype=wide),
        squares(values),
        squares(values * values) if fourths else nothing,
        count - torch.count_nonzero(values),
        count - torch.isfinite(values).sum(),
        values.abs().amax(),
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


def figures_of(table: Tensor, names: list[str]) -> Tensor:
    """The figures of a table of sums [rows, columns]: [rows, names]."""
    of = dict(zip(COLUMNS, table.unbind(1), strict=True))
    return torch.stack([FIGURES[name](of) for name in names], 1) if names else table.new_zeros(len(table), 0)
