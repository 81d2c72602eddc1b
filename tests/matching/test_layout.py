"""Which shapes hold the same values."""

import pytest

from hookline.matching.layout import same_layout

SAME = [
    ((16, 128), (1, 16, 128)),
    ((1, 1, 4), (4,)),
    ((), (1,)),
    ((2, 16, 61), (32, 61)),
    ((2, 16), (32,)),
    ((2, 3, 4, 5), (6, 4, 5)),
    ((1, 2, 16, 61), (32, 61)),
    ((0, 3), (1, 0, 3)),
]
OTHER = [
    ((8,), (8, 1)),
    ((1, 8), (8, 1)),
    ((2, 1), (2,)),
    ((4, 6, 3), (6, 4, 3)),
    ((2, 3), (3, 2)),
    ((2, 16, 32), (2, 16, 4, 8)),
    ((2, 16, 32), (1, 16, 32)),
    ((2, 5, 32), (2, 1, 32)),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_leading_ones_and_merged_batch_hold_the_same(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert same_layout(one, other)
    assert same_layout(other, one)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_other_axes_are_another_layout(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert not same_layout(one, other)
    assert not same_layout(other, one)
