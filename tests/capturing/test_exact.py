"""Sums that do not depend on the order of their terms, next to those of fractions."""

import math
import random
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline.capturing.exact import Exact, less_product, shared_out, two_product

NEAR = st.floats(-(2.0**40), 2.0**40, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 2.0**-20)
ANY = st.floats(-1e300, 1e300)
TINY = st.floats(-1e-300, 1e-300)


def of(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def summed(values: list[float]) -> Exact:
    found = Exact.zero(1, torch.device("cpu"))
    for value in values:
        found.add(of(value))
    found.normalise()
    return found


def bits(found: Exact) -> list[str]:
    return [term.item().hex() for term in found.terms]


def in_a_tree(values: list[float], chance: random.Random) -> Exact:
    """The values in any order, merged two by two in any tree."""
    parts = [summed([value]) for value in chance.sample(values, len(values))]
    while len(parts) > 1:
        one, other = (parts.pop(chance.randrange(len(parts))) for _ in range(2))
        one.merge(other)
        if chance.random() < 0.5:
            one.normalise()
        parts.append(one)
    parts[0].normalise()
    return parts[0]


@settings(deadline=None, max_examples=300)
@given(st.lists(NEAR, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_every_order_and_tree_has_the_same_bits(values: list[float], chance: random.Random) -> None:
    expected = summed(values)
    other = in_a_tree(values, chance)

    assert bits(other) == bits(expected)
    assert other.exact
    assert expected.exact


@settings(deadline=None, max_examples=300)
@given(st.lists(NEAR, min_size=1, max_size=30))
def test_first_term_is_the_sum_correctly_rounded(values: list[float]) -> None:
    assert summed(values).terms[0].item() == math.fsum(values)


@settings(deadline=None, max_examples=500)
@given(st.lists(st.one_of(ANY, NEAR, TINY), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_what_says_exact_is_the_sum(values: list[float], chance: random.Random) -> None:
    found = in_a_tree(values, chance)
    total = sum(map(Fraction, values))

    if found.exact:
        first, second, third = (Fraction(term.item()) for term in found.terms)
        assert first + second + third == total
        assert float(first) == float(total)
        assert float(second) == float(total - first)


@settings(deadline=None, max_examples=300)
@given(st.lists(TINY, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_subnormal_numbers_are_added_exactly(values: list[float], chance: random.Random) -> None:
    values = [value * 2.0**-30 for value in values]
    found = in_a_tree(values, chance)

    assert found.exact
    assert sum(Fraction(term.item()) for term in found.terms) == sum(map(Fraction, values))


def test_cancellation_leaves_what_is_small() -> None:
    found = summed([1e30, 3.0, 1e-10, -1e30, -3.0])

    assert found.exact
    assert found.terms[0].item() == 1e-10


def test_terms_that_overlap_make_room_for_more() -> None:
    found = summed([2.0**100, 1.0, -(2.0**100), 2.0**-60, 2.0**-100, 2.0**-140])

    assert found.exact
    assert found.terms[0].item() == 1.0
    assert sum(Fraction(term.item()) for term in found.terms) == sum(map(Fraction, (1.0, 2**-60, 2**-100, 2**-140)))


def test_terms_out_of_order_are_sorted_before_anything_is_lost() -> None:
    values = [2.0**100, 1.0, 2.0**-60, -(2.0**100), 2.0**-120, 2.0**-62]
    found = summed(values)

    assert found.exact
    assert sum(Fraction(term.item()) for term in found.terms) == sum(map(Fraction, values))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0**-53], 1.0),
        ([1.0, 2.0**-53, 2.0**-120], 1.0 + 2.0**-52),
        ([1.0, 2.0**-53, -(2.0**-120)], 1.0),
        ([1.0, -(2.0**-54), -(2.0**-120)], 1.0 - 2.0**-53),
        ([1.0 - 2.0**-53, 2.0**-54, 2.0**-120], 1.0),
        ([-1.0, -(2.0**-53), -(2.0**-120)], -1.0 - 2.0**-52),
    ],
)
def test_halfway_between_two_numbers_the_rest_decides(values: list[float], expected: float) -> None:
    found = summed(values)

    assert found.terms[0].item() == expected == math.fsum(values)
    assert sum(Fraction(term.item()) for term in found.terms) == sum(map(Fraction, values))


def test_spread_that_three_terms_cannot_hold_is_said() -> None:
    assert not summed([1.0, 2.0**-60, 2.0**-120, 2.0**-180]).exact
    assert summed([1.0, 2.0**-60, 2.0**-120]).exact


def test_loss_stays_said_after_a_merge() -> None:
    lossy, other = summed([1.0, 2.0**-60, 2.0**-120, 2.0**-180]), summed([1.0])
    other.merge(lossy)

    assert not other.exact


def test_no_zero_has_a_sign() -> None:
    assert bits(summed([-0.0])) == bits(summed([0.0])) == ["0x0.0p+0"] * 3


@settings(deadline=None, max_examples=300)
@given(NEAR, NEAR)
def test_product_and_its_error_are_the_product(one: float, other: float) -> None:
    product, error = two_product(of(one), of(other))

    assert Fraction(product.item()) + Fraction(error.item()) == Fraction(one) * Fraction(other)


@settings(deadline=None, max_examples=300)
@given(st.lists(NEAR, min_size=1, max_size=20), st.integers(1, 10**12))
def test_quotient_has_twice_the_digits(values: list[float], count: int) -> None:
    high, low = shared_out(summed(values), count)
    expected = sum(map(Fraction, values)) / count

    assert abs(Fraction(high.item()) + Fraction(low.item()) - expected) <= abs(expected) * Fraction(2) ** -100


@settings(deadline=None, max_examples=300)
@given(st.lists(st.floats(1e6, 1e6 + 1), min_size=2, max_size=20))
def test_variance_next_to_a_large_mean_keeps_its_digits(values: list[float]) -> None:
    squares = Exact.zero(1, torch.device("cpu"))
    for value in values:
        for part in two_product(of(value), of(value)):
            squares.add(part)
    squares.normalise()
    mean = shared_out(summed(values), len(values))
    found = less_product(shared_out(squares, len(values)), mean, mean).item()
    exact = [Fraction(value) for value in values]
    expected = sum(value * value for value in exact) / len(exact) - (sum(exact) / len(exact)) ** 2

    assert abs(Fraction(found) - expected) <= Fraction(1, 2**52) * expected + Fraction(1e-18)
