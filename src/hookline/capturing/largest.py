"""The largest values of each feature, and the rows that they are of, whatever order they come in."""

from typing import NamedTuple

import torch
from torch import Tensor

from hookline.capturing.misuse import MisuseError

SHIFT = 24  # bits of a place that number the position; the others number the example
NOWHERE = torch.iinfo(torch.int64).max  # the place of what is not there yet


class Top(NamedTuple):
    """The largest values of each feature, the largest first; of equal ones that of the first example and position.

    - `values`: [count, features], float64;
    - `examples`: [count, features], the number of the example of each;
    - `positions`: [count, features], where in its example it is; None without `rows=`.
    """

    values: Tensor
    examples: Tensor
    positions: Tensor | None

    @property
    def numbers(self) -> set[int]:
        """The numbers of all its examples."""
        return {*self.examples.reshape(-1).tolist()}


class Largest:
    """The `values` [count, features] and their `places`, which number example and position; -inf where there are fewer.

    Which values are kept depends on the values and places alone, not on the order of `add` and `merge`.
    """

    __slots__ = ("places", "values")

    def __init__(self, values: Tensor, places: Tensor) -> None:
        self.values, self.places = values, places

    @classmethod
    def empty(cls, count: int, features: int, device: torch.device) -> "Largest":
        """Without values."""
        shape = (count, features)
        return cls(
            torch.full(shape, -torch.inf, dtype=torch.float64, device=device),
            torch.full(shape, NOWHERE, dtype=torch.int64, device=device),
        )

    def add(self, values: Tensor, places: Tensor) -> None:
        """Add rows, [rows, features], at ascending places, [rows]."""
        count = len(self.values)
        if not len(values):
            return
        least, last = self.values[-1].to(values.dtype), self.places[-1]
        wanted = self._wanted(values, places, least, last)
        if int(wanted.sum(0).max()) > 2 * count < len(values):  # find out how large a value must be to stay
            own = values.topk(count, dim=0).values[-1]
            last = torch.where(own > least, NOWHERE, last)
            least = torch.maximum(own, least)
            wanted = self._wanted(values, places, least, last)
        equal = wanted & (values == least)
        wanted &= ~(equal & (equal.cumsum(0) > count))  # of equal ones the first few are enough
        feature, row = wanted.T.nonzero(as_tuple=True)
        if not len(row):
            return
        numbers = wanted.sum(0)
        slot = torch.arange(len(row), device=row.device) - (numbers.cumsum(0) - numbers)[feature]
        fresh = Largest.empty(int(numbers.max()), values.shape[1], values.device)
        fresh.values[slot, feature] = values[row, feature].double() + 0.0  # + 0.0: no zero has a sign
        fresh.places[slot, feature] = places[row]
        self.merge(fresh)

    @staticmethod
    def _wanted(values: Tensor, places: Tensor, least: Tensor, last: Tensor) -> Tensor:
        """Which values come before the last one that is kept."""
        return (values > least) | ((values == least) & (places[:, None] < last))

    def merge(self, other: "Largest") -> None:
        """Take over what belongs here."""
        count = len(self.values)
        values, places = torch.cat([self.values, other.values]), torch.cat([self.places, other.places])
        places, order = places.sort(dim=0, stable=True)
        values, again = values.gather(0, order).sort(dim=0, descending=True, stable=True)
        self.values, self.places = values[:count].contiguous(), places.gather(0, again)[:count].contiguous()

    def top(self, rows: int, *, by_position: bool) -> Top:
        """What there is of so many rows."""
        there = slice(0, min(rows, len(self.values)))
        places = self.places[there]
        positions = places & (2**SHIFT - 1)
        return Top(self.values[there], places >> SHIFT, positions if by_position else None)


def places_of(examples: Tensor, positions: Tensor | None) -> Tensor:
    """A number for each row, by which rows are in order of example and position."""
    if positions is None:
        return examples << SHIFT
    if len(positions) and int(positions.max()) >> SHIFT:
        raise MisuseError(
            f"top= numbers positions up to {2**SHIFT - 1:,}, and there is one at {int(positions.max()):,}"
        )
    return (examples << SHIFT) + positions
