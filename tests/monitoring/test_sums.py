"""Tests of sums and figures: those of parts merge to those of the whole, and numpy agrees."""

import math

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from hookline.monitoring.sums import COLUMNS, FIGURES, figures_of, sums_of

VALUES = arrays(numpy.float32, st.integers(2, 50), elements=st.floats(-1e3, 1e3, width=32))
NAMES = [*FIGURES]


def figures(tensor: Tensor) -> dict[str, float]:
    sums = sums_of(tensor)
    assert sums is not None
    return dict(zip(NAMES, figures_of(sums[None], NAMES)[0].tolist(), strict=True))


@settings(deadline=None)
@given(VALUES)
def test_figures_are_those_of_numpy(values: numpy.ndarray) -> None:
    x = values.astype(numpy.float64)
    found = figures(torch.from_numpy(values))
    square = (x**2).mean()
    assert found["mean"] == pytest.approx(x.mean(), rel=1e-5, abs=1e-6 * numpy.abs(x).max())
    assert found["rms"] == pytest.approx(math.sqrt(square), rel=1e-5)
    assert found["norm"] == pytest.approx(numpy.linalg.norm(x), rel=1e-5)
    assert found["absmax"] == numpy.abs(x).max()
    assert found["zeros"] == (x == 0).mean()
    if square > 1e-12:
        assert found["kurtosis"] == pytest.approx((x**4).mean() / square**2, rel=1e-4)
        assert found["std"] ** 2 == pytest.approx(x.var(), rel=1e-4, abs=1e-5 * square)


@settings(deadline=None)
@given(VALUES, st.integers(0, 50))
def test_sums_of_parts_are_those_of_the_whole(values: numpy.ndarray, cut: int) -> None:
    whole = torch.from_numpy(values)
    parts = [sums_of(whole[:cut]), sums_of(whole[cut:])]
    assert parts[0] is not None
    assert parts[1] is not None
    added = parts[0] + parts[1]
    added[-1] = torch.maximum(parts[0][-1], parts[1][-1])
    expected = sums_of(whole)
    assert expected is not None
    torch.testing.assert_close(added, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_counted(value: float) -> None:
    found = figures(torch.tensor([1.0, value, 0.0, value]))
    assert (found["unfinite"], found["zeros"]) == (2, 0.25)
    assert not math.isfinite(found["rms"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.bool])
def test_any_dtype_has_sums(dtype: torch.dtype) -> None:
    assert figures(torch.tensor([[0, 1], [1, 1]]).to(dtype))["rms"] == pytest.approx(math.sqrt(0.75))


def test_large_squares_keep_their_digits() -> None:
    ones = torch.full((3_000_001,), 1.1)
    assert figures(ones)["rms"] == pytest.approx(1.1, rel=1e-6)


def test_transposed_tensor_has_the_same_sums() -> None:
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    assert figures(x.t()) == pytest.approx(figures(x))


def test_empty_tensor_counts_nothing() -> None:
    assert sums_of(torch.zeros(0)).tolist() == [0.0] * len(COLUMNS)  # type: ignore[union-attr]


def test_tensor_without_data_has_none() -> None:
    assert sums_of(torch.zeros(3, device="meta")) is None
