"""Sums that do not depend on the order of their terms: expansions of three float64 tensors.

The sum of two float64 numbers is a float64 number and an error, which is a float64 number too (`two_sum`, of Knuth).
An expansion keeps these errors instead of dropping them, so that it holds the sum itself and not a rounded one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

TERMS = 3
SWEEPS = 100  # three or four are enough; what needs more is a fault
SPLIT = 2.0**27 + 1


class Exact:
    """The sum of float64 tensors of one shape, exact in each element, however many they are and in which order.

    - `terms`: three tensors that together are the sum. After `normalise()` the first one is the sum correctly rounded,
      the second what it lacks, correctly rounded, and the third the rest; equal sums have equal bits then.
    - `exact`: whether nothing was lost. Three terms hold about 150 bits from the largest digit to the smallest.
    """

    __slots__ = ("exact", "terms")

    def __init__(self, terms: Sequence[Tensor], exact: bool = True) -> None:
        self.terms, self.exact = [*terms], exact

    @classmethod
    def zero(cls, size: int, device: torch.device) -> "Exact":
        """A sum of so many elements, without terms yet."""
        return cls([torch.zeros(size, dtype=torch.float64, device=device) for _ in range(TERMS)])

    def add(self, value: Tensor) -> None:
        """Add a float64 tensor."""
        rest = value
        for place, term in enumerate(self.terms):
            self.terms[place], rest = two_sum(term, rest)
            if place and not bool(rest.any()):
                return
        *self.terms, rest = swept([*self.terms, rest])  # terms that overlap may hold it once they are sorted
        self.exact = self.exact and not bool(rest.any())

    def merge(self, other: "Exact") -> None:
        """Add another sum."""
        for term in other.terms:
            self.add(term)
        self.exact = self.exact and other.exact

    def normalise(self) -> None:
        """Make the terms those that every order of adding comes to."""
        first, second, third = swept(self.terms)
        # Halfway between two numbers, the first term went to the even one; what is left decides if there is something.
        double = 2 * second
        other = first + double
        moves = (other - first == double) & (second.sign() == third.sign()) & (third != 0)
        first, second = torch.where(moves, other, first), torch.where(moves, -second, second)
        second, third = two_sum(second, third)
        self.terms = [term + 0.0 for term in (first, second, third)]  # + 0.0: no zero has a sign

    def to(self, device: torch.device) -> "Exact":
        """The same on a device."""
        return Exact([term.to(device) for term in self.terms], self.exact)

    def clone(self) -> "Exact":
        """A sum that is added to apart from this one; the tensors themselves are never changed."""
        return Exact(self.terms, self.exact)


def two_sum(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of two tensors, rounded, and what rounding took off it: together they are the sum.

    >>> two_sum(torch.tensor(1.0, dtype=torch.float64), torch.tensor(2.0**-60, dtype=torch.float64))[1].item() * 2**60
    1.0
    """
    total = one + other
    own = total - one
    return total, (one - (total - own)) + (other - own)


def two_product(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The product of two tensors, rounded, and what rounding took off it (Dekker)."""
    product = one * other
    (high, low), (other_high, other_low) = _halves(one), _halves(other)
    return product, low * other_low - (((product - high * other_high) - low * other_high) - high * other_low)


def _halves(value: Tensor) -> tuple[Tensor, Tensor]:
    """A number as two of half as many bits (Veltkamp)."""
    scaled = SPLIT * value
    high = scaled - (scaled - value)
    return high, value - high


def swept(terms: Sequence[Tensor]) -> list[Tensor]:
    """Terms of the same sum, each no more than half of the last digit of the one before it."""
    found = [*terms]
    for _ in range(SWEEPS):
        before = [*found]
        for place in range(len(found) - 2, -1, -1):
            found[place], found[place + 1] = two_sum(found[place], found[place + 1])
        if all(map(torch.equal, found, before)):
            return found
    raise AssertionError("the terms of a sum do not settle")


Pair = tuple[Tensor, Tensor]
"""A number of twice the digits: a rounded one, and what it lacks."""


def shared_out(total: Exact, count: int) -> Pair:
    """A normalised sum divided by a count."""
    first, second, _ = total.terms
    count_ = torch.tensor(float(count), dtype=torch.float64, device=first.device)
    quotient = first / count_
    product, error = two_product(quotient, count_)
    return two_sum(quotient, ((first - product) - error + second) / count_)


def less_product(value: Pair, one: Pair, other: Pair) -> Tensor:
    """A number minus the product of two others, rounded at the end."""
    product, error = two_product(one[0], other[0])
    error = error + (one[0] * other[1] + one[1] * other[0])
    difference, rest = two_sum(value[0], -product)
    return difference + (rest + (value[1] - error))
