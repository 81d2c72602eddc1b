"""Statistics of a tensor, and of a whole tensor from those of its parts."""

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hookline.model.sharded import local_part
from hookline.torch_private import DisableTorchDispatch, DisableTorchFunction, FakeTensor, is_tracing

BINS = 24  # of a histogram
MANY = 2**17  # a float32 sum of more squares than this loses digits
ROW = 4096
# The range of largest magnitudes whose squares, and sums of these, neither underflow nor overflow.
SQUARED_WELL = {torch.float32: (1e-15, 1e14), torch.float64: (1e-140, 1e140)}


@dataclass(frozen=True, slots=True)
class Stats:
    """Statistics of the elements of a tensor. A figure without a meaning, as for an empty tensor, is NaN.

    - `count`: the number of elements; of a sparse tensor, those that it stores;
    - `min`, `max`, `mean`, `std`: over all elements, of the magnitudes if they are complex; NaN if an element is; `std`
      is of the population;
    - `absmax`: the largest magnitude;
    - `norm`: the L2 norm;
    - `zeros`: the share of elements that are 0, from 0 to 1;
    - `nan`, `inf`: the number of elements that are NaN and infinite;
    - `histogram`: if kept, the number of elements in each of 24 equal bins from `min` to `max`; None if an element is
      not finite.
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
    histogram: tuple[int, ...] | None = None

    @property
    def absmax(self) -> float:
        """The largest magnitude; NaN if an element is."""
        return max(abs(self.min), abs(self.max)) if not math.isnan(self.min) else self.min


class Pending:
    """Statistics that wait on a device: those of many tensors are fetched together when one is read."""

    __slots__ = ("lock", "rows", "values")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.rows: list[Tensor] = []
        self.values: list[list[float]] = []

    def add(self, row: Tensor) -> int:
        """Keep the figures of one tensor on the device; returns their place."""
        with self.lock:
            self.rows.append(row)
            return len(self.values) + len(self.rows) - 1

    def fetch(self, place: int) -> list[float]:
        """The figures at a place. All that wait are fetched, with one transfer per device."""
        with self.lock:
            if place >= len(self.values):
                self._fetch_all()
            return self.values[place]

    def _fetch_all(self) -> None:
        rows, self.rows = self.rows, []
        by_device: dict[torch.device, list[Tensor]] = {}
        for row in rows:
            by_device.setdefault(row.device, []).append(row)
        fetched = {device: iter(fetch(device, own)) for device, own in by_device.items()}
        self.values += [next(fetched[row.device]) for row in rows]


def fetch(device: torch.device, rows: list[Tensor]) -> list[Any]:
    """Rows of figures on one device as numbers, with one wait for all of them."""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None and accelerator.type == device.type:
        torch.accelerator.synchronize(device)  # rows of one device may come from several of its streams
    fetched: list[Any] = torch.stack(rows).tolist()
    return fetched


def measure(tensor: Tensor, pending: Pending, *, bins: int = 0) -> "Stats | Waiting | None":
    """The statistics of a tensor, with a histogram of `bins` bins: at once on the CPU, `Waiting` on any other device.

    None for a tensor without elements to read (meta, fake) or of a kind that PyTorch cannot reduce. Of a distributed
    tensor they are of the part in this process.
    """
    try:
        tensor = local_part(tensor)
        if is_traced(tensor):
            return None
        with unseen(tensor), torch.no_grad():
            return _measure(elements(tensor.detach()), pending, bins)
    except Exception:  # a tensor class may raise anything, and measuring never ends a call
        return None


def is_traced(tensor: Tensor) -> bool:
    """Whether operations on a tensor are being traced into a graph, which would include those that measure it."""
    return bool(is_tracing()) or isinstance(tensor, FakeTensor)


@contextmanager
def unseen(tensor: Tensor) -> Iterator[None]:
    """A block in which no mode of the caller (make_fx, selective checkpointing, a TorchFunctionMode) sees operations on
    a plain tensor."""
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        yield
        return
    with DisableTorchDispatch(), DisableTorchFunction():
        yield


@dataclass(frozen=True, slots=True)
class Waiting:
    """Statistics that are still on a device."""

    count: int
    pending: Pending
    place: int

    def fetch(self) -> Stats:
        """Wait for the device and return the statistics."""
        return _stats(self.count, self.pending.fetch(self.place))


def elements(tensor: Tensor) -> Tensor:
    """The elements as one dense tensor of a floating dtype wide enough for sums."""
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_nested:
        whole = tensor.layout == torch.jagged and tensor.lengths() is None  # type: ignore[attr-defined]
        tensor = tensor.values() if whole else torch.cat([part.reshape(-1) for part in tensor.unbind()])
    if tensor.layout != torch.strided:
        tensor = tensor.coalesce().values() if tensor.layout == torch.sparse_coo else tensor.values()
    if tensor.is_complex():
        tensor = tensor.abs()
    if tensor.dtype in (torch.float32, torch.float64):
        return tensor
    return tensor.to(torch.float32 if tensor.is_floating_point() else _widest(tensor.device))


def _widest(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _measure(values: Tensor, pending: Pending, bins: int) -> "Stats | Waiting | None":
    count = values.numel()
    if values.is_meta:
        return None
    if count == 0:
        return Stats(0, math.nan, math.nan, math.nan, math.nan, 0.0, math.nan, 0, 0)
    if values.device.type == "cpu":
        straight = values if values.is_contiguous() else _in_memory_order(values)
        stats = _measure_at_once(straight, count)
        return replace(stats, histogram=_histogram(straight, stats, bins)) if bins else stats
    return _measure_later(values, count, pending, bins)


def _histogram(values: Tensor, stats: Stats, bins: int) -> tuple[int, ...] | None:
    if stats.nan or stats.inf:
        return None
    half_width = (stats.max / 2 - stats.min / 2) or 1.0
    counts: list[int] = _places(values, stats.min, half_width, bins).bincount(minlength=bins).tolist()
    return tuple(counts)


def _places(values: Tensor, low: Any, half_width: Any, bins: int) -> Tensor:
    """The bin of each element. It computes with halves, because the range of finite elements may overflow."""
    share = (values.reshape(-1) * 0.5).sub_(low / 2).mul_(bins).div_(half_width)
    return share.nan_to_num_().clamp_(0, bins - 1).to(torch.int32)


class WaitingSums(Waiting):
    """Statistics computed from the sums that a compiled graph took (`graph_values.SUMS`)."""

    __slots__ = ()

    def fetch(self) -> Stats:
        """Wait for the device and return the statistics."""
        low, high, total, squares, *counts = self.pending.fetch(self.place)
        mean, square = total / self.count, squares / self.count
        std = math.sqrt(max(square - mean * mean, 0.0)) if math.isfinite(square) else math.nan
        return _stats(self.count, [low, high, mean, std, math.sqrt(squares), *counts])


def reduced(count: int, sums: Sequence[Tensor], pending: Pending) -> Waiting:
    """Statistics of a tensor from the sums that a compiled graph took."""
    widest = _widest(sums[0].device)
    return WaitingSums(count, pending, pending.add(torch.stack([each.to(widest) for each in sums])))


def _measure_later(values: Tensor, count: int, pending: Pending, bins: int = 0) -> Waiting:
    low, high = values.aminmax()
    std, mean = torch.std_mean(values, correction=0)
    nan, unfinite = values.isnan().sum(), (~values.isfinite()).sum()
    figures = (low, high, mean, std, torch.linalg.vector_norm(values), (values == 0).sum(), nan, unfinite)
    widest = _widest(values.device)
    row = torch.stack([figure.to(widest) for figure in figures])
    if bins:
        counts = torch.zeros(bins, dtype=widest, device=values.device)
        half_width = high / 2 - low / 2
        places = _places(values, low, half_width.where(half_width != 0, torch.ones_like(half_width)), bins)
        row = torch.cat([row, counts.index_add_(0, places, torch.ones_like(places, dtype=widest))])
    return Waiting(count, pending, pending.add(row))


def _stats(count: int, figures: list[float]) -> Stats:
    low, high, mean, std, norm, zeros, nan, unfinite, *counts = figures
    if unfinite:
        return _stats_unfinite(count, low, high, zeros / count, int(nan), int(unfinite - nan))
    histogram = tuple(map(int, counts)) or None
    return Stats(count, low, high, mean, std if low < high else 0.0, norm, zeros / count, 0, 0, histogram)


def _stats_unfinite(count: int, low: float, high: float, zeros: float, nan: int, inf: int) -> Stats:
    return Stats(count, low, high, low + high, math.nan, math.nan if nan else math.inf, zeros, nan, inf)


def _in_memory_order(values: Tensor) -> Tensor:
    """The same elements with dimensions sorted by stride, so that a transposed tensor is read in memory order."""
    return values.permute(sorted(range(values.dim()), key=values.stride, reverse=True))


def _measure_at_once(values: Tensor, count: int) -> Stats:
    low, high = (bound.item() for bound in values.aminmax())
    zeros = (count - int(torch.count_nonzero(values))) / count
    largest = max(-low, high)

    if not math.isfinite(largest):
        return _stats_unfinite(count, low, high, zeros, int(values.isnan().sum()), int(values.isinf().sum()))
    smallest_good, largest_good = SQUARED_WELL[values.dtype]
    if largest and not smallest_good < largest < largest_good:
        scaled = _measure_at_once(values.double() / largest, count)
        return replace(
            scaled, min=low, max=high, mean=scaled.mean * largest, std=scaled.std * largest, norm=scaled.norm * largest
        )
    mean, norm = values.mean().item(), _norm(values, count)
    std = _std(values, count, mean, norm) if low < high else 0.0
    return Stats(count, low, high, mean, std, norm, zeros, 0, 0)


def _norm(values: Tensor, count: int) -> float:
    """The L2 norm; for many elements by rows, because PyTorch sums the squares of a float32 tensor in float32."""
    if count <= MANY:
        return float(torch.linalg.vector_norm(values))
    flat = values.reshape(-1)
    whole = count - count % ROW
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1)
    return float(torch.linalg.vector_norm(torch.cat([rows, flat[whole:]]), dtype=torch.float64))


def _std(values: Tensor, count: int, mean: float, norm: float) -> float:
    """The standard deviation, from the norm and the mean if that loses no digits; else by a separate pass."""
    square = norm * norm / count
    variance = square - mean * mean
    if variance > 0.1 * square:
        return math.sqrt(variance)
    return torch.std(values, correction=0).item()


def whole(parts: Sequence[Stats]) -> Stats:
    """The statistics of all elements of several tensors together, from those of each.

    Every figure is exact up to the rounding of the parts. The histogram is None unless the parts have the same bins.

    >>> whole([Stats(2, 0.0, 2.0, 1.0, 1.0, 2.0, 0.5, 0, 0), Stats(2, 1.0, 1.0, 1.0, 0.0, 2**0.5, 0.0, 0, 0)]).zeros
    0.25
    """
    filled = [part for part in parts if part.count]
    if len(filled) < 2:
        return filled[0] if filled else parts[0]
    count = sum(part.count for part in filled)
    zeros = sum(round(part.zeros * part.count) for part in filled) / count
    nan, inf = sum(part.nan for part in filled), sum(part.inf for part in filled)
    lowest, highest = min(part.min for part in filled), max(part.max for part in filled)
    if nan:
        return Stats(count, math.nan, math.nan, math.nan, math.nan, math.nan, zeros, nan, inf)
    if inf:
        return Stats(count, lowest, highest, lowest + highest, math.nan, math.inf, zeros, nan, inf)

    mean = math.fsum(part.mean * (part.count / count) for part in filled)
    spread = [math.hypot(part.std, part.mean - mean) * math.sqrt(part.count / count) for part in filled]
    std = math.hypot(*spread) if lowest < highest else 0.0
    norm = math.hypot(*(part.norm for part in filled))
    return Stats(count, lowest, highest, mean, std, norm, zeros, 0, 0, _joined_histogram(filled))


def alike(parts: Sequence[Stats]) -> bool:
    """Whether all figures are equal, with NaN equal to NaN."""
    return len({repr(part) for part in parts}) == 1


def _joined_histogram(parts: Sequence[Stats]) -> tuple[int, ...] | None:
    """The sums of the counts in each bin, if every part has the same bins."""
    counts = [part.histogram for part in parts if part.histogram is not None]
    if len(counts) < len(parts) or len({(part.min, part.max) for part in parts}) > 1:
        return None
    return tuple(map(sum, zip(*counts, strict=True)))
