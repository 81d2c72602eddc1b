"""By how much two tensors differ: figures, tolerances, and the kinds of tensors that are hard."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing._comparison import default_tolerances

from hookline.matching.tensors import CHUNK, TOLERANCES, Difference, compare, tolerance

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("one", TOLERANCES)
@pytest.mark.parametrize("other", [*TOLERANCES, torch.int64, torch.bool])
def test_tolerances_are_those_of_torch_testing(one: torch.dtype, other: torch.dtype) -> None:
    assert tolerance(one, other) == default_tolerances(one, other)


@pytest.mark.parametrize("dtype", FLOATS)
def test_whether_two_differ_is_what_assert_close_says(dtype: torch.dtype) -> None:
    a = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    relative, _ = tolerance(dtype)
    for factor in (0.5, 0.9, 1.1, 2.0):
        b = (a.double() * (1 + factor * relative)).to(dtype)
        try:
            torch.testing.assert_close(b, a)
            close = True
        except AssertionError:
            close = False
        assert compare(a, b).differs is not close


def test_the_figures_are_what_they_say() -> None:
    a, b = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([3.0, 4.0, 1.0])

    found = compare(a, b)

    assert found.differs
    assert (found.absolute, found.relative, found.count, found.beyond, found.nan) == (1.0, 0.0, 3, 1, 0)
    assert found.error == pytest.approx(1 / 5)
    assert found.cosine == pytest.approx(25 / (5 * math.sqrt(26)))
    assert found.snr == pytest.approx(20 * math.log10(5))


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_complex_numbers_of_two_halves_are_compared() -> None:
    a = torch.tensor([1 + 2j, 3 - 1j]).to(torch.complex32)

    assert compare(a, a.clone()).identical
    assert compare(a, a.conj()).absolute == 4
    assert compare(a, a.conj()).differs


@pytest.mark.parametrize("dtype", FLOATS)
def test_neighbours_are_one_ulp_apart(dtype: torch.dtype) -> None:
    a = torch.tensor([1.0, -3.0, 0.0], dtype=dtype)

    assert compare(a, torch.nextafter(a, torch.tensor(10.0, dtype=dtype))).ulps == 1


def test_ulps_are_counted_in_the_lower_dtype_and_across_zero() -> None:
    a = torch.tensor([1.0, 1.0])
    assert compare(a, torch.tensor([1.0, 1 + 2**-7], dtype=torch.bfloat16)).ulps == 1

    tiny = torch.finfo(torch.float64).smallest_normal * 2**-52
    assert compare(torch.tensor([-tiny]).double() * 0 - tiny, torch.tensor([tiny]).double() * 0 + tiny).ulps == 2


def test_a_tensor_and_itself_are_identical() -> None:
    a = torch.randn(10)

    found = compare(a, a.clone())

    assert found.identical
    assert not found.differs
    assert (found.absolute, found.cosine, found.snr, found.ulps) == (0.0, 1.0, math.inf, 0.0)


def test_not_a_number_in_both_is_no_difference_and_in_one_it_is() -> None:
    a, b = torch.tensor([math.nan, 1.0, math.inf]), torch.tensor([1.0, 1.0, -math.inf])

    assert compare(a, a.clone()).identical
    found = compare(a, b)
    assert found.differs
    assert (found.nan, found.beyond, found.absolute) == (2, 2, 0.0)
    assert "NaN or infinite in only one of them" in str(found)


NAN, INF = torch.full((3,), math.nan), torch.tensor([math.inf, -math.inf])
NOTHING_FINITE = {
    "NaN": (NAN, NAN.clone()),
    "infinite": (INF, INF.clone()),
    "both": (torch.cat([NAN, INF]), torch.cat([NAN, INF])),
    "of two dtypes": (NAN, NAN.bfloat16()),
    "float8": (NAN.to(torch.float8_e4m3fn), NAN.to(torch.float8_e4m3fn)),
    "complex": (torch.complex(NAN, NAN), torch.complex(NAN, NAN)),
    "empty": (torch.zeros(0), torch.zeros(0)),
    "empty, of two dtypes": (torch.zeros(0), torch.zeros(0).bfloat16()),
    "empty ints": (torch.zeros(3, 0, dtype=torch.int64), torch.zeros(3, 0, dtype=torch.int64)),
}
ON_ONE_SIDE = {
    "NaN vs numbers": (NAN, torch.ones(3)),
    "in other places": (torch.tensor([math.nan, 1.0]), torch.tensor([1.0, math.nan])),
    "of the other sign": (INF, -INF),
    "NaN vs infinite": (NAN[:2], INF),
}


def figures_of(found: Difference) -> list[float]:
    return [getattr(found, name) for name in ("absolute", "relative", "error", "cosine", "snr", "ulps")]


@pytest.mark.parametrize("pair", NOTHING_FINITE.values(), ids=NOTHING_FINITE)
def test_equal_tensors_without_finite_elements_do_not_differ(
    pair: tuple[Tensor, Tensor],
) -> None:
    found = compare(*pair)

    assert not found.differs
    assert found.identical == (pair[0].dtype == pair[1].dtype)
    assert all(map(math.isnan, figures_of(found)))


@pytest.mark.parametrize("pair", ON_ONE_SIDE.values(), ids=ON_ONE_SIDE)
def test_unequal_tensors_without_finite_pairs_have_no_figures(
    pair: tuple[Tensor, Tensor],
) -> None:
    found = compare(*pair)

    assert found.differs
    assert found.nan == found.beyond == pair[0].numel()
    assert all(map(math.isnan, figures_of(found)))


def test_one_finite_element_is_enough_to_have_figures_wherever_it_is() -> None:
    a = torch.full((CHUNK + 7,), math.nan)
    a[-1] = 1.0

    assert figures_of(compare(a, a.clone())) == [0.0, 0.0, 0.0, 1.0, math.inf, 0.0]


def test_figures_are_of_the_one_finite_element() -> None:
    a = torch.tensor([math.inf] * 5 + [1.0])

    assert figures_of(compare(a, a.clone())) == [0.0, 0.0, 0.0, 1.0, math.inf, 0.0]


def test_two_of_which_nothing_can_be_compared_say_so() -> None:
    assert str(compare(NAN, NAN.clone())) == "the same"
    assert str(compare(NAN, NAN.bfloat16())) == "nothing to compare"


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2), "shape 2x3 vs 3x2"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int64), "dtype float32 vs int64"),
        (torch.zeros(2, dtype=torch.bool), torch.zeros(2, dtype=torch.int64), "dtype bool vs int64"),
    ],
    ids=["shape", "float vs int", "bool vs int"],
)
def test_another_shape_or_kind_is_a_difference_of_its_own(a: Tensor, b: Tensor, says: str) -> None:
    found = compare(a, b)

    assert found.differs
    assert str(found) == says
    assert math.isnan(found.absolute)


def test_a_lower_dtype_alone_is_no_difference() -> None:
    a = torch.randn(100)

    found = compare(a, a.bfloat16())

    assert not found.differs
    assert not found.identical
    assert found.dtypes == ("float32", "bfloat16")


@pytest.mark.parametrize(
    "a",
    [
        torch.zeros(0),
        torch.zeros(3, 0, dtype=torch.int64),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j, 0j]),
        torch.eye(3).to_sparse(),
        torch.randn(4, 5).t(),
        torch.randn(3).to(torch.float8_e4m3fn),
        torch.tensor(2.0),
    ],
    ids=["empty", "empty ints", "bool", "complex", "sparse", "transposed", "float8", "scalar"],
)
def test_every_kind_of_tensor_is_the_same_as_itself(a: Tensor) -> None:
    assert not compare(a, a.clone()).differs


def test_integers_differ_by_one() -> None:
    assert compare(torch.tensor([2**40]), torch.tensor([2**40 + 1])).differs
    assert compare(torch.tensor([True]), torch.tensor([False])).differs


def test_tensors_without_data_are_compared_by_shape() -> None:
    found = compare(torch.zeros(2, device="meta"), torch.zeros(2, device="meta"))

    assert (found.differs, found.basis) == (False, "shape")


def test_large_tensors_are_looked_at_in_parts_and_give_the_same_figures() -> None:
    a = torch.randn(CHUNK + 7)
    b = a.clone()
    b[-1] += 1

    found = compare(a, b)

    assert found.count == CHUNK + 7
    assert (found.beyond, found.absolute) == (1, pytest.approx(1))
    assert found.error == pytest.approx(1 / float(a.double().norm()), rel=1e-5)


def test_a_tolerance_of_ones_own() -> None:
    a, b = torch.ones(2), torch.full((2,), 1.05)

    assert not compare(a, b, allowed=(0.1, 0.0)).differs
    assert compare(a, b, allowed=(0.0, 0.01)).differs


def test_a_difference_is_small_and_plain() -> None:
    assert not hasattr(compare(torch.ones(1), torch.ones(1)), "__dict__")
    assert isinstance(compare(torch.ones(1), torch.ones(1)), Difference)


def test_figures_that_overflow_are_infinite() -> None:
    found = compare(torch.ones(2, dtype=torch.float64), torch.full((2,), 1e200, dtype=torch.float64))

    assert found.differs
    assert found.snr == -math.inf


@pytest.mark.parametrize("other", [torch.int64, torch.uint8, torch.int32])
def test_large_whole_numbers_differ_by_one(other: torch.dtype) -> None:
    a, b = torch.tensor([2**53, 7]), torch.tensor([2**53 + 1, 7])

    found = compare(a, b)

    assert found.differs
    assert not found.identical
    assert (found.absolute, found.beyond) == (1.0, 1)
    assert not compare(torch.tensor([7]), torch.tensor([7], dtype=other)).differs


def test_infinity_of_the_other_sign_is_a_difference() -> None:
    found = compare(torch.tensor([math.inf, 1.0]), torch.tensor([-math.inf, 1.0]))

    assert (found.differs, found.nan, found.beyond) == (True, 1, 1)
    assert "or infinite with opposite signs" in str(found)


@pytest.mark.parametrize("by", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(1, 6, 4), (2, 3, 4)])
def test_leading_axes_do_not_matter(shape: tuple[int, ...], by: float) -> None:
    tensor = torch.randn(6, 4)

    found = compare(tensor, tensor.reshape(shape) + by)

    assert found.differs is bool(by)
    assert found.absolute == pytest.approx(by, abs=1e-6)
    assert found.regrouped
