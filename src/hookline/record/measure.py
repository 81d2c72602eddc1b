"""Statistics of a tensor, in few passes over it and without waiting for its device."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NAMES = ("min", "max", "mean", "std", "norm", "zeros", "nan", "inf")


@dataclass(frozen=True, slots=True)
class Stats:
    """What a tensor's elements are like. NaN where a figure has no meaning: an empty tensor, or a kind of tensor that cannot tell.

    `min`, `max`, `mean`, `std` (of the population) are over all elements, NaN where one of them is; of complex elements they are
    of the magnitudes. `absmax` is the largest magnitude, `norm` the L2 norm, `zeros` the share of elements that are 0, from 0 to 1;
    `nan` and `inf` count elements, `count` all of them (of a sparse tensor: those it stores).
    """

    count: int
    min: float
    max: float
    mean: float
    std: float
    norm: float
    zeros: float
    nan: int
    inf: int

    @property
    def absmax(self) -> float:
        """The largest magnitude; NaN where an element is."""
        return max(abs(self.min), abs(self.max)) if not math.isnan(self.min) else self.min


class Pending:
    """Statistics on their way from a device: the figures of many tensors wait there, and are fetched together when one is read."""

    __slots__ = ("rows", "values")

    def __init__(self) -> None:
        self.rows: list[Tensor] = []
        self.values: list[list[float]] = []

    def add(self, row: Tensor) -> int:
        """Keep one tensor's figures on the device; gives their place."""
        self.rows.append(row)
        return len(self.values) + len(self.rows) - 1

    def fetch(self, place: int) -> list[float]:
        """The figures at a place; all that wait are fetched, one transfer a device."""
        if place >= len(self.values):
            rows, self.rows = self.rows, []
            by_device: dict[torch.device, list[Tensor]] = {}
            for row in rows:
                by_device.setdefault(row.device, []).append(row)
            fetched = {device: iter(torch.stack(own).tolist()) for device, own in by_device.items()}
            self.values += [next(fetched[row.device]) for row in rows]
        return self.values[place]


def measure(tensor: Tensor, pending: Pending) -> "Stats | Waiting | None":
    """The statistics of a tensor: at once on the CPU, `Waiting` on any other device; None for a tensor without elements to read
    (meta, fake) or of a kind that PyTorch cannot reduce."""
    if torch.jit.is_tracing():
        return None  # the trace would hold every operation of the measuring
    try:
        with torch.no_grad():
            return _measure(_elements(tensor.detach()), pending)
    except (RuntimeError, NotImplementedError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Statistics that are still on a device."""

    count: int
    pending: Pending
    place: int

    def fetch(self) -> Stats:
        """Wait for the device, and give the statistics."""
        return _stats(self.count, self.pending.fetch(self.place))


def _elements(tensor: Tensor) -> Tensor:
    """The elements as one dense tensor of a floating dtype that adds up well."""
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_nested:
        tensor = tensor.values() if tensor.layout == torch.jagged else torch.cat([part.reshape(-1) for part in tensor.unbind()])
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.values()
    if tensor.is_complex():
        return tensor.abs()
    if tensor.dtype in (torch.float32, torch.float64):
        return tensor
    return tensor.to(torch.float64 if not tensor.is_floating_point() else torch.float32)


def _measure(values: Tensor, pending: Pending) -> "Stats | Waiting | None":
    count = values.numel()
    if values.is_meta:
        return None
    if count == 0:
        return Stats(0, *[math.nan] * 4, 0.0, math.nan, 0, 0)
    if values.device.type == "cpu":
        return _measure_at_once(values, count)
    finite = values.isfinite()
    low, high = values.aminmax()
    std, mean = torch.std_mean(values, correction=0)
    figures = (low, high, mean, std, torch.linalg.vector_norm(values), (values == 0).sum(), values.isnan().sum(), (~finite).sum())
    row = torch.stack([figure.to(torch.float64) for figure in figures])
    return Waiting(count, pending, pending.add(row))


def _measure_at_once(values: Tensor, count: int) -> Stats:
    low, high = (bound.item() for bound in values.aminmax())
    mean = values.mean().item()
    norm = torch.linalg.vector_norm(values).item()
    zeros = (count - int(torch.count_nonzero(values))) / count

    if math.isfinite(low) and math.isfinite(high):
        return Stats(count, low, high, mean, _std(values, count, mean, norm), norm, zeros, 0, 0)
    nan = int(values.isnan().sum())
    return Stats(count, low, high, mean, math.nan, norm, zeros, nan, int(values.isinf().sum()))


def _std(values: Tensor, count: int, mean: float, norm: float) -> float:
    """From the norm and the mean where that loses no digits; else by a pass of its own."""
    square = norm * norm / count
    variance = square - mean * mean
    if variance > 0.1 * square:
        return math.sqrt(variance)
    return torch.std(values, correction=0).item()


def _stats(count: int, figures: list[float]) -> Stats:
    low, high, mean, std, norm, zeros, nan, unfinite = figures
    return Stats(count, low, high, mean, std, norm, zeros / count, int(nan), int(unfinite - nan))
