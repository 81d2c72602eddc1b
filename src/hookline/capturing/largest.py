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
        """Add rows, [rows, features] of float32 or float64, at ascending places, [rows]."""
        count, features = self.values.shape
        if not len(values):
            return
        least = self.values[-1].to(values.dtype)
        early = places[0] < self.places[-1]  # where an equal value may come before the last one that is kept
        row, feature = candidates(values, least, early)
        if len(row) > 4 * count * features and len(values) > count:  # find out how large a value must be to stay
            own = values.topk(count, dim=0).values[-1]
            least, early = torch.maximum(own, least), early | (own > least)
            row, feature = candidates(values, least, early)
        equal = values[row, feature] == least[feature]
        feature, order = feature.sort(stable=True)
        row, equal = row[order], equal[order]
        few = ~equal | (rank_within(feature, equal, features) < count)  # of equal ones the first few are enough
        row, feature = row[few], feature[few]
        if not len(row):
            return
        slot = rank_within(feature, torch.ones_like(feature, dtype=torch.bool), features)
        fresh = Largest.empty(int(slot.max()) + 1, features, values.device)
        fresh.values[slot, feature] = values[row, feature].double() + 0.0  # + 0.0: no zero has a sign
        fresh.places[slot, feature] = places[row]
        self.merge(fresh)

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


def candidates(values: Tensor, least: Tensor, early: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and features of the values that are over the least one that is kept, or equal to it where `early`."""
    above = torch.nextafter(least, torch.full_like(least, torch.inf))
    row, feature = (values >= torch.where(early, least, above)).nonzero(as_tuple=True)
    return row, feature


def rank_within(feature: Tensor, counted: Tensor, features: int) -> Tensor:
    """How many of the `counted` ones of its own feature come before each; features are ascending."""
    before = counted.cumsum(0) - counted.long()
    begin = torch.searchsorted(feature, torch.arange(features, device=feature.device))
    begin = begin.clamp(max=max(0, len(feature) - 1))
    return before - before[begin][feature] if len(feature) else before


def places_of(examples: Tensor, positions: Tensor | None) -> Tensor:
    """A number for each row, by which rows are in order of example and position."""
    if positions is None:
        return examples << SHIFT
    if len(positions) and int(positions.max()) >> SHIFT:
        raise MisuseError(
            f"top= numbers positions up to {2**SHIFT - 1:,}, and there is one at {int(positions.max()):,}"
        )
    return (examples << SHIFT) + positions
