"""Pyramid: the course of many figures over any number of steps, in bounded memory."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

POINTS = 512
ROOM = 45 * 2**20  # bytes of all series together
RECENT = 16  # samples that are kept as they are, for alerts
BYTES = 8  # of a point: a float32 and two bfloat16


class Pyramid:
    """Series of figures that share their steps. Each has at most `points` points: a point is the smallest, mean and
    largest value of several samples that follow on one another. When all points are used, neighbours are joined, and
    each holds twice as many samples from then on.

    A value that is NaN, of a module that was not called, is left out of its point; points that are joined count alike.
    The smallest and largest are rounded to bfloat16; the last samples (`recent`) are as they were.
    """

    def __init__(self, series: int = 0, points: int = POINTS) -> None:
        self.points, self.count, self.per_point, self.in_last = points, 0, 1, 0
        self.steps = torch.zeros(points, 2, dtype=torch.int64)  # the first and last step of each point
        self.mean = torch.zeros(points, 0)
        self.low = torch.zeros(points, 0, dtype=torch.bfloat16)
        self.high = torch.zeros(points, 0, dtype=torch.bfloat16)
        self.numbers = torch.zeros(0)  # of each series, the samples in its last point that are not NaN
        self.recent = torch.zeros(RECENT, 0)
        self.recent_steps: list[int] = []
        self.grow(series)

    @property
    def series(self) -> int:
        """How many series there are."""
        return self.mean.shape[1]

    def grow(self, series: int) -> None:
        """Add series, which have no values so far. Many series have fewer points each, so that all fit into ROOM."""
        more = series - self.series
        if more <= 0:
            return
        while self.points > 32 and series * self.points * BYTES > ROOM:
            self._shrink()
        self.mean = torch.cat([self.mean, torch.full((self.points, more), math.nan)], 1)
        self.low = torch.cat([self.low, torch.full((self.points, more), math.nan, dtype=torch.bfloat16)], 1)
        self.high = torch.cat([self.high, torch.full((self.points, more), math.nan, dtype=torch.bfloat16)], 1)
        self.recent = torch.cat([self.recent, torch.full((RECENT, more), math.nan)], 1)
        self.numbers = torch.cat([self.numbers, torch.zeros(more)])

    def add(self, step: int, values: Tensor) -> None:
        """Add a sample of every series: [series]."""
        self.recent = torch.cat([self.recent[1:], values.float()[None]])
        self.recent_steps = [*self.recent_steps[1 - RECENT :], step]
        if self.in_last == 0 and self.count == self.points:
            self._fold()
        now = values.float()
        if self.in_last == 0:
            place = self.count
            self.count += 1
            self.steps[place] = step
            self.mean[place], self.low[place], self.high[place] = now, now, now
            self.numbers = (~now.isnan()).float()
        else:
            place = self.count - 1
            self.steps[place, 1] = step
            self.numbers += ~now.isnan()
            there = self.mean[place]
            both = there + (now - there) / self.numbers
            self.mean[place] = torch.where(there.isnan(), now, torch.where(now.isnan(), there, both))
            self.low[place] = torch.fmin(self.low[place].float(), now)
            self.high[place] = torch.fmax(self.high[place].float(), now)
        self.in_last = (self.in_last + 1) % self.per_point

    def _fold(self) -> None:
        """Join neighbours."""
        half = self.count // 2
        pairs = slice(0, 2 * half)

        def two(table: Tensor) -> tuple[Tensor, Tensor]:
            return table[pairs][0::2].float(), table[pairs][1::2].float()

        first, second = two(self.mean)
        mean = torch.where(first.isnan(), second, torch.where(second.isnan(), first, (first + second) / 2))
        self.mean[:half] = mean
        self.low[:half] = torch.fmin(*two(self.low))
        self.high[:half] = torch.fmax(*two(self.high))
        self.steps[:half] = torch.stack([self.steps[pairs][0::2, 0], self.steps[pairs][1::2, 1]], 1)
        odd = self.count % 2
        if odd:
            last = self.count - 1
            for table in (self.mean, self.low, self.high, self.steps):
                table[half] = table[last]
            self.in_last = self.in_last or self.per_point
        elif self.in_last:
            self.in_last += self.per_point
        self.numbers.fill_(self.in_last)
        self.count, self.per_point = half + odd, self.per_point * 2

    def _shrink(self) -> None:
        if self.count > self.points // 2:
            self._fold()
        self.points //= 2
        self.steps, self.mean = self.steps[: self.points].clone(), self.mean[: self.points].clone()
        self.low, self.high = self.low[: self.points].clone(), self.high[: self.points].clone()

    def of(self, series: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Steps [points, 2], smallest, mean and largest value of each point of one series, where it has any."""
        mean = self.mean[: self.count, series]
        there = ~mean.isnan()
        middle = mean[there]
        if self.per_point == 1:  # each point is a sample
            return self.steps[: self.count][there], middle, middle, middle
        low = torch.fmin(self.low[: self.count, series][there].float(), middle)
        high = torch.fmax(self.high[: self.count, series][there].float(), middle)
        return self.steps[: self.count][there], low, middle, high

    def latest(self) -> Tensor:
        """The last sample: [series]."""
        return self.recent[-1]


def bytes_of(pyramid: Pyramid) -> int:
    """How much memory the series take."""
    tables: Sequence[Tensor] = (pyramid.mean, pyramid.low, pyramid.high, pyramid.recent, pyramid.steps)
    return sum(table.nbytes for table in tables)
