"""Counts of values by their leading bits: quantiles and histograms of any number of values, in 512 kB."""

import math
from typing import Any

import torch
from torch import Tensor

KEYS = 2**16  # the sign, the exponent and seven bits of a float32
POSITIVE = 2**15
OUTSIDE = 0x7F80  # of magnitudes from 2**128, which float32 does not have
EXACT = (torch.float32, torch.float16, torch.bfloat16)  # dtypes whose values are those of float32
ERROR = 2.0**-8  # of a quantile, relative to the value
SMALLEST = 2.0**-126  # from where it is


class Sketch:
    """How many values there are with each sign, exponent and first seven bits, as float32 has them.

    All values of one bucket are within 2^-8 of its middle, relative to themselves. Magnitudes below 2^-126 are in
    buckets of width 2^-133. Counts are whole numbers, so that two sketches add up without an error.
    """

    __slots__ = ("counts",)

    def __init__(self, counts: Tensor) -> None:
        self.counts = counts

    @classmethod
    def empty(cls, device: torch.device) -> "Sketch":
        """A sketch without values."""
        return cls(torch.zeros(KEYS, dtype=torch.int64, device=device))

    def add(self, values: Tensor) -> None:
        """Count these values, which must be finite."""
        self.counts = self.counts + torch.bincount(keys_of(values), minlength=KEYS)

    def merge(self, other: "Sketch") -> None:
        """Count what another sketch counted."""
        self.counts = self.counts + other.counts

    def quantile(self, share: float, low: float, high: float) -> float:
        """The middle of the bucket of the smallest value that a share of all values do not exceed; `low` and `high` are
        the smallest and the largest value."""
        counts, middles = self._ascending()
        upto = counts.cumsum(0)
        count = int(upto[-1])
        rank = min(max(math.ceil(share * count), 1), count)
        if rank in (1, count):
            return low if rank == 1 else high
        middle = float(middles[int(torch.searchsorted(upto, rank))])
        return middle if math.isinf(middle) else min(max(middle, low), high)

    def histogram(self, bins: int, low: float, high: float) -> tuple[Tensor, Tensor]:
        """The counts of equal bins from the smallest to the largest value, and the edges of these."""
        counts, middles = self._ascending()
        begin, end = (low - 0.5, high + 0.5) if low == high else (low, high)
        edges = torch.linspace(begin, end, bins + 1, dtype=torch.float64)
        there = counts.nonzero()[:, 0]
        places = torch.searchsorted(edges, middles[there].clamp(low, high), right=True) - 1
        found = torch.zeros(bins, dtype=torch.int64)
        return found.index_add(0, places.clamp(0, bins - 1), counts[there]), edges

    def _ascending(self) -> tuple[Tensor, Tensor]:
        """The counts from the smallest to the largest value, and the middle of each bucket."""
        counts = self.counts.cpu()
        middles = middles_of(torch.arange(POSITIVE))
        ordered = torch.cat([counts[POSITIVE:].flip(0), counts[:POSITIVE]])
        return ordered, torch.cat([-middles.flip(0), middles])


def keys_of(values: Tensor) -> Tensor:
    """The bucket of each value: the upper half of its float32, whose lower half is cut off and not rounded."""
    single = values.reshape(-1)
    if values.dtype in EXACT:
        bits = single.float().view(torch.int32)
    else:
        wide = single.double()
        rounded = wide.float()
        size = wide.abs()
        up = (rounded.double().abs() > size) & (size < 2.0**128)
        bits = rounded.view(torch.int32) - up.to(torch.int32)
    return (bits >> 16) & (KEYS - 1)


def middles_of(keys: Tensor) -> Tensor:
    """The middle of positive buckets, as float64; 0 of the first, which has 0 in it, and infinity outside of float32's
    range."""
    low, high = ((key << 16).to(torch.int32).view(torch.float32).double() for key in (keys, keys + 1))
    high = torch.where(keys == OUTSIDE - 1, torch.tensor(2.0**128, dtype=torch.float64), high)
    middles = (low + high) / 2
    middles = torch.where(keys == 0, torch.zeros_like(middles), middles)
    return torch.where(keys >= OUTSIDE, torch.full_like(middles, math.inf), middles)


def sparse(sketch: Sketch) -> dict[str, Tensor]:
    """The buckets that have values, and their counts."""
    there = sketch.counts.nonzero()[:, 0]
    return {"buckets": there.to(torch.int32), "counts": sketch.counts[there]}


def dense(found: dict[str, Any]) -> Sketch:
    """The sketch of such buckets and counts."""
    counts = torch.zeros(KEYS, dtype=torch.int64)
    counts[found["buckets"].long()] = found["counts"]
    return Sketch(counts)
