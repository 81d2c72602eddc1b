"""Total: what the rows of one captured module add up to."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from hookline.capturing.block import Block, Kind
from hookline.capturing.exact import Exact, Pair, less_product, shared_out
from hookline.capturing.largest import Largest, Top, places_of
from hookline.capturing.misuse import MisuseError
from hookline.capturing.sketch import EXACT, Sketch
from hookline.errors import ArgumentError, CaptureError, RecordError

STRIP = 128  # features whose products with those after them are one matrix product
MOST = 2**15  # features of a covariance: 4.3 GB for each of three terms
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Measures:
    """What is measured besides mean, std, min, max and zeros; `positions` says whether rows have them."""

    covariance: bool
    quantiles: bool
    top: int
    positions: bool


class Total:
    """What the rows of one point add up to, without any of them being stored. Tensors are on the CPU and have one
    element for each feature; a row of several dimensions is flattened.

    - `path`, `type`: the module and its class; `shape`, `dtype`: of a row; `rows`, `examples`: how many there were;
    - `mean`, `std`: float64, [features]; `std` is of the population, as `torch.std(correction=0)`;
    - `min`, `max`: float64, [features]; `zeros`: the share of values that are 0, from 0 to 1, [features];
    - `covariance`, `correlation`: float64, [features, features], of the population, with `covariance=True`;
    - `quantile(0.99)`, `histogram(bins=50)`: of all values of the point together, with `quantiles=True` or
      `histogram=True`;
    - `top`: the largest values of each feature and the rows that they are of, with `top=`: a `Top`;
    - `exact`: whether the sums lost nothing, so that they do not depend on the order of the batches.
    """

    def __init__(self, path: str, type: str, kind: Kind, measures: Measures, device: torch.device = CPU) -> None:
        self.path, self.type, (self.shape, self.dtype) = path, type, kind
        self.measures = measures
        self.rows = self.examples = 0
        features = self.features = math.prod(self.shape)
        if not features:
            raise MisuseError(f"{path!r} gives rows of shape {[*self.shape]}, which have no values")
        if measures.covariance and features > MOST:
            size = features * features * 8 / 1e9
            raise MisuseError(
                f"{path!r} has rows of {features:,} features, whose covariance has {size:,.0f} GB; rows= makes each "
                "position a row, and keep= takes a function that pools or picks features"
            )
        products = sum((end - begin) * (features - begin) for begin, end in strips(features))
        self.sums = Exact.zero(features, device)
        self.squares = Exact.zero(products if measures.covariance else features, device)
        self.low = torch.full((features,), torch.inf, dtype=torch.float64, device=device)
        self.high = torch.full((features,), -torch.inf, dtype=torch.float64, device=device)
        self.zero_counts = torch.zeros(features, dtype=torch.int64, device=device)
        self.sketch = Sketch.empty(device) if measures.quantiles else None
        self.largest = Largest.empty(measures.top, features, device) if measures.top else None

    # Adding

    @property
    def kind(self) -> Kind:
        """The shape and the dtype of a row."""
        return self.shape, self.dtype

    def add(self, block: Block, start: int) -> None:
        """Add the rows of examples, of which the first has the number `start`."""
        if block.kind != self.kind:
            raise other_kind(self.path, self.kind, block.kind)
        self.examples += len(block.counts)
        values = block.values.reshape(len(block.values), self.features)
        if not len(values):
            return
        self.rows += len(values)
        values = values.to(self.low.device)
        wide = values.double()
        plain = values.float() if values.dtype in EXACT else wide
        self.sums.add(wide.sum(0))
        self.squares.add(products_of(wide) if self.measures.covariance else wide.square().sum(0))
        low, high = plain.amin(0).double(), plain.amax(0).double()
        self.low, self.high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        self.zero_counts = self.zero_counts + (plain == 0).sum(0)
        if self.sketch is not None:
            self.sketch.add(plain)
        if self.largest is not None:
            self.largest.add(*in_order(plain, block, start))

    def merge(self, other: "Total") -> None:
        """Add what another one has of the same point."""
        if other.kind != self.kind:
            raise other_kind(self.path, self.kind, other.kind)
        self.rows, self.examples = self.rows + other.rows, self.examples + other.examples
        self.sums.merge(other.sums)
        self.squares.merge(other.squares)
        self.low, self.high = torch.minimum(self.low, other.low), torch.maximum(self.high, other.high)
        self.zero_counts = self.zero_counts + other.zero_counts
        if self.sketch is not None and other.sketch is not None:
            self.sketch.merge(other.sketch)
        if self.largest is not None and other.largest is not None:
            self.largest.merge(other.largest)

    def settle(self) -> None:
        """Bring everything to the CPU, in the form that every order of the batches comes to."""
        self.sums, self.squares = self.sums.to(CPU), self.squares.to(CPU)
        self.sums.normalise()
        self.squares.normalise()
        self.low, self.high = self.low.cpu() + 0.0, self.high.cpu() + 0.0  # + 0.0: no zero has a sign
        self.zero_counts = self.zero_counts.cpu()
        if self.sketch is not None:
            self.sketch = Sketch(self.sketch.counts.cpu())
        if self.largest is not None:
            self.largest = Largest(self.largest.values.cpu(), self.largest.places.cpu())

    def clone(self) -> "Total":
        """One that is added to apart from this one."""
        found = Total(self.path, self.type, self.kind, self.measures)
        found.merge(self)
        return found

    # Reading

    @property
    def exact(self) -> bool:
        """Whether the sums lost nothing: their values spread over no more than about 150 bits."""
        return self.sums.exact and self.squares.exact

    @property
    def mean(self) -> Tensor:
        """The mean of each feature; NaN without rows."""
        return self._mean[0] if self.rows else self._nothing()

    @property
    def std(self) -> Tensor:
        """The standard deviation of each feature, of the population; NaN without rows."""
        return self._variance().sqrt() if self.rows else self._nothing()

    @property
    def min(self) -> Tensor:
        """The smallest value of each feature; NaN without rows."""
        return self.low.clone() if self.rows else self._nothing()

    @property
    def max(self) -> Tensor:
        """The largest value of each feature; NaN without rows."""
        return self.high.clone() if self.rows else self._nothing()

    @property
    def zeros(self) -> Tensor:
        """The share of values of each feature that are 0; NaN without rows."""
        return self.zero_counts.double() / self.rows if self.rows else self._nothing()

    @property
    def covariance(self) -> Tensor:
        """The covariance of the features, of the population: [features, features], symmetric in each bit.

        Times rows / (rows - 1) it is that of a sample, as `numpy.cov` has it. RecordError without `covariance=True`.
        """
        self._expect(self.measures.covariance, "covariance", "covariance=True")
        if not self.rows:
            return self._nothing()[:, None].expand(-1, self.features).clone()
        squares = Exact([unpacked(term, self.features) for term in self.squares.terms])
        one, other = ((high[:, None], low[:, None]) for high, low in (self._mean,) * 2)
        found = less_product(shared_out(squares, self.rows), one, (other[0].mT, other[1].mT))
        found.diagonal().clamp_(min=0)
        varies = self._varies
        return torch.where(varies[:, None] & varies, found, 0.0)

    @property
    def correlation(self) -> Tensor:
        """The correlation of the features: [features, features]; NaN for a feature that is always the same.

        RecordError without `covariance=True`.
        """
        covariance = self.covariance
        std = covariance.diagonal().sqrt()
        found = (covariance / (std[:, None] * std)).clamp(-1, 1)
        found.diagonal()[std > 0] = 1
        return torch.where((std[:, None] > 0) & (std > 0), found, torch.nan)

    @property
    def top(self) -> Top:
        """The largest values of each feature, and the examples and positions that they are of: a Top.

        RecordError without `top=`.
        """
        self._expect(self.largest is not None, "top", "top=32")
        assert self.largest is not None
        return self.largest.top(self.rows, by_position=self.measures.positions)

    def quantile(self, share: float) -> float:
        """The smallest of all values of the point that this share of them do not exceed, as `numpy.quantile` has it
        with `method="inverted_cdf"`.

        It is off by 2^-8 of itself at most (by 2^-133 below 2^-126); `quantile(0)` and `quantile(1)` are exact. Beyond
        the range of float32 it is infinite. RecordError without `quantiles=True`, and where there are no rows.
        """
        if not 0 <= share <= 1:
            raise ArgumentError(f"quantile takes a number from 0 to 1, not {share!r}")
        return self._sketch("quantile").quantile(float(share), float(self.low.min()), float(self.high.max()))

    def histogram(self, bins: int = 50) -> tuple[Tensor, Tensor]:
        """The number of values in each of equal bins from the smallest to the largest value of the point: the counts,
        int64, [bins], and the edges, float64, [bins + 1].

        A value within 2^-8 of an edge, relative to itself, may be counted in the bin next to its own. RecordError
        without `histogram=True`, and where there are no rows.
        """
        if type(bins) is not int or bins < 1:
            raise ArgumentError(f"bins must be a whole number from 1, not {bins!r}")
        return self._sketch("histogram").histogram(bins, float(self.low.min()), float(self.high.max()))

    def figures(self) -> dict[str, float]:
        """Mean, std, min, max and the share of zeros over all features together; NaN without rows."""
        count = self.rows * self.features
        if not count:
            return dict.fromkeys(("mean", "std", "min", "max", "zeros"), math.nan)
        squares = [self._squares(term) for term in self.squares.terms]
        mean, square = whole(self.sums.terms) / count, whole(squares) / count
        low, high = float(self.low.min()), float(self.high.max())
        return {
            "mean": float(mean),
            "std": math.sqrt(max(square - mean * mean, Fraction(0))) if low < high else 0.0,
            "min": low,
            "max": high,
            "zeros": int(self.zero_counts.sum()) / count,
        }

    def __repr__(self) -> str:
        return f"<Total of {self.path!r}: {self.rows:,} rows of shape {[*self.shape]}, {self.dtype}>"

    @property
    def _mean(self) -> Pair:
        return shared_out(self.sums, self.rows)

    @property
    def _varies(self) -> Tensor:
        """Whether a feature is not always the same. Of one that is, the sums of squares show rounding alone."""
        return self.low < self.high

    def _variance(self) -> Tensor:
        squares = Exact([self._squares(term) for term in self.squares.terms])
        found = less_product(shared_out(squares, self.rows), self._mean, self._mean).clamp(min=0)
        return torch.where(self._varies, found, 0.0)

    def _squares(self, term: Tensor) -> Tensor:
        """The sum of the squares of each feature: of products, the diagonal."""
        return term[diagonal(self.features)] if self.measures.covariance else term

    def _sketch(self, what: str) -> Sketch:
        self._expect(self.sketch is not None, what, f"{'quantiles' if what == 'quantile' else what}=True")
        if not self.rows:
            raise RecordError(f"{self.path!r} has no rows, and so no {what}")
        assert self.sketch is not None
        return self.sketch

    def _expect(self, there: bool, what: str, argument: str) -> None:
        if not there:
            raise RecordError(f"{self.path!r} has no {what}: call hookline.totals with {argument}")

    def _nothing(self) -> Tensor:
        return torch.full((self.features,), torch.nan, dtype=torch.float64)


def in_order(values: Tensor, block: Block, start: int) -> tuple[Tensor, Tensor]:
    """The rows of a block in order of example and position, and their places."""
    counts = torch.tensor(block.counts)
    examples = torch.arange(start, start + len(counts)).repeat_interleave(counts)
    places = places_of(examples, block.positions)
    if bool((places.diff() < 0).any()):
        places, order = places.sort(stable=True)
        values = values[order.to(values.device)]
    return values, places.to(values.device)


def other_kind(path: str, one: Kind, other: Kind) -> CaptureError:
    """The error about rows of two kinds."""
    return CaptureError(
        f"{path!r} gives rows of shape {[*one[0]]}, {one[1]}, in one batch and {[*other[0]]}, {other[1]}, in another; "
        "where examples differ in length, rows=hookline.rows(mask=...) makes each position a row"
    )


# Products of features: those of each strip of features with itself and all features after it, one strip after another


def strips(features: int) -> list[tuple[int, int]]:
    """Where each strip begins and ends."""
    return [(begin, min(begin + STRIP, features)) for begin in range(0, features, STRIP)]


def products_of(rows: Tensor) -> Tensor:
    """The sum over the rows of the products of two features each, without those that symmetry gives."""
    features = rows.shape[1]
    return torch.cat([(rows[:, begin:end].mT @ rows[:, begin:]).reshape(-1) for begin, end in strips(features)])


def unpacked(products: Tensor, features: int) -> Tensor:
    """The products as a matrix: [features, features], symmetric in each bit."""
    found = torch.zeros(features, features, dtype=torch.float64)
    place = 0
    for begin, end in strips(features):
        size = (end - begin) * (features - begin)
        found[begin:end, begin:] = products[place : place + size].view(end - begin, -1)
        place += size
    return found.triu() + found.triu(1).mT


def diagonal(features: int) -> Tensor:
    """Where in the products the square of each feature is."""
    places, place = [], 0
    for begin, end in strips(features):
        width = features - begin
        places.append(place + torch.arange(end - begin) * (width + 1))
        place += (end - begin) * width
    return torch.cat(places)


def whole(terms: list[Tensor]) -> Fraction:
    """The sum of all elements of all terms, to about 100 bits."""
    numbers: list[Any] = [number for term in terms for number in term.tolist()]
    first = math.fsum(numbers)
    return Fraction(first) + Fraction(math.fsum([*numbers, -first]))
