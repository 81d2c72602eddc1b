"""Tests of the pyramid: bounded memory, and every point true of its samples."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline.monitoring.pyramid import ROOM, Pyramid, bytes_of


def filled(values: list[float], points: int = 8, every: int = 1) -> Pyramid:
    pyramid = Pyramid(1, points)
    for place, value in enumerate(values):
        pyramid.add(place * every, torch.tensor([value]))
    return pyramid


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-100, 100, width=16), min_size=1, max_size=200))
def test_points_are_the_extremes_and_means_of_their_samples(values: list[float]) -> None:
    steps, low, mean, high = filled(values).of(0)
    assert len(steps) <= 8
    assert steps[0, 0] == 0
    assert steps[-1, 1] == len(values) - 1
    assert (steps[1:, 0] == steps[:-1, 1] + 1).all()
    for (first, last), least, middle, most in zip(steps.tolist(), low, mean, high, strict=True):
        own = values[first : last + 1]
        assert float(middle) == pytest.approx(sum(own) / len(own), rel=1e-3, abs=1e-3)
        assert float(least) == pytest.approx(min(own), rel=0.01, abs=1e-6)
        assert float(most) == pytest.approx(max(own), rel=0.01, abs=1e-6)


def test_few_samples_are_kept_as_they_are() -> None:
    steps, _, mean, _ = filled([1.5, 2.5, 0.1]).of(0)
    assert steps.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert mean.tolist() == pytest.approx([1.5, 2.5, 0.1])


def test_missing_values_are_left_out() -> None:
    _, _, mean, _ = filled([1.0, math.nan, 3.0, math.nan] * 8, points=4).of(0)
    assert mean.tolist() == [2.0] * len(mean)


def test_series_may_come_later() -> None:
    pyramid = filled([1.0, 2.0])
    pyramid.grow(2)
    pyramid.add(2, torch.tensor([3.0, 9.0]))
    steps, _, mean, _ = pyramid.of(1)
    assert (steps.tolist(), mean.tolist()) == ([[2, 2]], [9.0])


def test_memory_does_not_grow_with_steps() -> None:
    pyramid = Pyramid(3, 16)
    before = bytes_of(pyramid)
    for step in range(5000):
        pyramid.add(step, torch.ones(3))
    assert bytes_of(pyramid) == before


def test_twenty_thousand_series_fit_into_fifty_megabytes() -> None:
    pyramid = Pyramid(20_000)
    assert bytes_of(pyramid) < 50e6
    assert ROOM < 50e6


def test_last_samples_are_exact() -> None:
    assert filled([0.1 * place for place in range(40)]).recent[:, 0].tolist() == pytest.approx(
        [0.1 * place for place in range(24, 40)]
    )
