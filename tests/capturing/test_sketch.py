"""Counts by leading bits: quantiles and histograms next to numpy's."""

import math

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline.capturing.sketch import ERROR, KEYS, SMALLEST, Sketch, dense, keys_of, middles_of, sparse

CPU = torch.device("cpu")
SINGLES = st.floats(width=32, allow_nan=False, allow_infinity=False)
DOUBLES = st.floats(-3e38, 3e38)


def sketch_of(values: torch.Tensor) -> Sketch:
    found = Sketch.empty(CPU)
    found.add(values)
    return found


def expect_near(found: float, value: float) -> None:
    bound = ERROR * abs(value) if abs(value) >= SMALLEST else 2.0**-133
    assert abs(found - value) <= bound, (found, value)


@settings(deadline=None, max_examples=300)
@given(st.lists(SINGLES, min_size=1, max_size=40), st.floats(0, 1))
def test_quantile_is_within_its_bound(values: list[float], share: float) -> None:
    found = sketch_of(torch.tensor(values)).quantile(share, min(values), max(values))

    expect_near(found, float(numpy.quantile(numpy.array(values), share, method="inverted_cdf")))


@settings(deadline=None, max_examples=300)
@given(st.lists(DOUBLES, min_size=1, max_size=40), st.floats(0, 1))
def test_float64_is_cut_off_and_not_rounded(values: list[float], share: float) -> None:
    found = sketch_of(torch.tensor(values, dtype=torch.float64)).quantile(share, min(values), max(values))

    expect_near(found, float(numpy.quantile(numpy.array(values), share, method="inverted_cdf")))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int16])
def test_every_dtype_has_the_buckets_of_its_values(dtype: torch.dtype) -> None:
    values = torch.arange(-300, 300).to(dtype)

    assert torch.equal(keys_of(values), keys_of(values.float()))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(-(2**53), 2**53), min_size=1, max_size=40), st.floats(0, 1))
def test_whole_numbers_are_within_the_bound(values: list[int], share: float) -> None:
    found = sketch_of(torch.tensor(values)).quantile(share, min(values), max(values))

    expect_near(found, float(numpy.quantile(numpy.array(values), share, method="inverted_cdf")))


def test_ends_are_exact() -> None:
    values = torch.randn(1000)
    found = sketch_of(values)
    low, high = float(values.min()), float(values.max())

    assert (found.quantile(0, low, high), found.quantile(1, low, high)) == (low, high)


def test_beyond_float32_a_quantile_is_infinite() -> None:
    values = torch.tensor([-1e200, -1e100, 0.0, 1e100, 1e200], dtype=torch.float64)
    found = sketch_of(values)

    assert [found.quantile(share, -1e200, 1e200) for share in (0.4, 0.6, 0.8)] == [-math.inf, 0.0, math.inf]
    assert found.quantile(1, -1e200, 1e200) == 1e200


def test_values_up_to_two_to_the_128_are_not_infinite() -> None:
    value = math.nextafter(2.0**128, 0)

    expect_near(sketch_of(torch.tensor([value] * 3, dtype=torch.float64)).quantile(0.5, 0.0, 2.0**129), value)


def test_zero_is_zero_with_either_sign() -> None:
    assert sketch_of(torch.tensor([-0.0, 0.0, -0.0, 0.0])).quantile(0.5, -1.0, 1.0) == 0


def test_histogram_is_that_of_numpy_but_for_values_near_an_edge() -> None:
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    low, high = float(values.min()), float(values.max())
    counts, edges = sketch_of(values).histogram(20, low, high)
    expected, theirs = numpy.histogram(values.double().numpy(), 20)

    numpy.testing.assert_allclose(edges.numpy(), theirs)
    assert int(counts.sum()) == len(values)
    for edge, ours, exact in zip(edges[1:].tolist(), counts.cumsum(0).tolist(), expected.cumsum(), strict=True):
        near = (values.double() - edge).abs() <= ERROR * values.double().abs() * 1.01
        assert abs(ours - exact) <= int(near.sum())


def test_histogram_of_one_value_is_as_wide_as_numpys() -> None:
    counts, edges = sketch_of(torch.full((7,), 3.0)).histogram(4, 3.0, 3.0)
    expected, theirs = numpy.histogram(numpy.full(7, 3.0), 4)

    assert counts.tolist() == expected.tolist()
    assert edges.tolist() == theirs.tolist()


def test_two_sketches_add_up() -> None:
    values = torch.randn(100)
    one, other = sketch_of(values[:30]), sketch_of(values[30:])
    one.merge(other)

    assert torch.equal(one.counts, sketch_of(values).counts)


def test_sparse_form_is_the_same_sketch() -> None:
    found = sketch_of(torch.randn(100))

    assert torch.equal(dense(sparse(found)).counts, found.counts)
    assert len(sparse(found)["counts"]) <= 100 < KEYS


def test_middles_are_ascending() -> None:
    assert bool((middles_of(torch.arange(0x7F81)).diff() > 0).all())
