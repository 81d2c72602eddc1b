"""Statistics of a whole from those of its parts are those that measuring the whole gives."""

import math

import pytest
import torch

from hookline.record.statistics import Pending, alike, measure, whole


def stats(*values, bins=0):
    return measure(torch.tensor(values, dtype=torch.float64), Pending(), bins=bins)


CASES = {
    "plain": ([1.0, 2.0], [-3.0, 0.0, 4.0]),
    "one empty": ([], [1.0, 5.0]),
    "both empty": ([], []),
    "constant": ([2.0, 2.0], [2.0]),
    "far from zero": ([1e6, 1e6 + 1], [1e6 + 2]),
    "nan": ([1.0, math.nan], [0.0, math.inf]),
    "inf": ([1.0, math.inf], [0.0]),
    "inf of both signs": ([1.0, math.inf], [-math.inf]),
    "huge": ([1e300, -1e300], [5e299]),
}


@pytest.mark.parametrize(("one", "other"), CASES.values(), ids=CASES)
def test_every_figure_is_that_of_the_whole(one, other):
    together, expected = whole([stats(*one), stats(*other)]), stats(*one, *other)
    for name in ("count", "min", "max", "mean", "std", "norm", "zeros", "nan", "inf"):
        assert getattr(together, name) == pytest.approx(getattr(expected, name), rel=1e-9, nan_ok=True), name


def test_histograms_with_the_same_bins_add_up():
    one, other = stats(0.0, 1.0, bins=4), stats(0.0, 0.3, 1.0, bins=4)
    assert whole([one, other]).histogram == (2, 1, 0, 2)


def test_histograms_with_other_bins_do_not():
    assert whole([stats(0.0, 1.0, bins=4), stats(0.0, 2.0, bins=4)]).histogram is None


def test_figures_are_alike_where_both_are_nan():
    assert alike([stats(math.nan), stats(math.nan)])
    assert not alike([stats(math.nan), stats(1.0)])
