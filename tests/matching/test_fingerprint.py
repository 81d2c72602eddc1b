"""Fingerprints: small, the same in every process, changed by any bit, close where the tensors are."""

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import hookline
from hookline.compare.recorded import compare_infos
from hookline.matching.fingerprint import SAMPLES, fingerprint, positions, same_elements
from hookline.record.keep import keeper
from hookline.record.record import TensorInfo
from hookline.record.statistics import Pending

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]
WIDE_UNSIGNED = [torch.uint16, torch.uint32, torch.uint64]


def info(tensor: Tensor) -> TensorInfo:
    return keeper(fingerprint, Pending())(tensor)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 7, 300, 5001])
def test_any_changed_element_changes_the_digest(dtype: torch.dtype, count: int) -> None:
    tensor = (torch.randn(count) * 3).to(dtype)
    for place in {0, count // 2, count - 1}:
        other = tensor.clone()
        other[place] = ~other[place] if dtype == torch.bool else other[place] + 1
        assert not same_elements(fingerprint(tensor), fingerprint(other))
    assert same_elements(fingerprint(tensor), fingerprint(tensor.clone()))


@pytest.mark.parametrize("dtype", WIDE_UNSIGNED)
@pytest.mark.parametrize("count", [0, 1, 300])
def test_whole_numbers_without_a_sign_have_fingerprints_too(dtype: torch.dtype, count: int) -> None:
    tensor = torch.arange(count).to(dtype)
    more = torch.arange(count + 1).to(dtype)[1:]

    assert same_elements(fingerprint(tensor), fingerprint(tensor.clone()))
    assert compare_infos(info(tensor), info(more)).differs is (count > 0)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=40), st.randoms())
def test_order_and_signs_count(values: list[float], random: object) -> None:
    tensor = torch.tensor(values, dtype=torch.float64)
    shuffled = tensor[torch.tensor(random.sample(range(len(values)), len(values)))]  # type: ignore[attr-defined]

    assert same_elements(fingerprint(tensor), fingerprint(shuffled)) == torch.equal(tensor, shuffled)
    assert same_elements(fingerprint(tensor), fingerprint(-tensor)) == torch.equal(tensor, -tensor)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.float8_e4m3fn]
)
@pytest.mark.parametrize("count", [1, 8, 3 * 2**18 + 1])
def test_zeros_of_either_sign_are_equal_and_so_are_nans_of_any_bits(dtype: torch.dtype, count: int) -> None:
    one = torch.zeros(count)
    other = -one
    one[-1], other[-1] = math.nan, torch.tensor(math.nan).neg()

    assert same_elements(fingerprint(one.to(dtype)), fingerprint(other.to(dtype)))
    assert not same_elements(fingerprint(one.to(dtype)), fingerprint(one.to(dtype).fill_(1)))


@pytest.mark.parametrize("keep", ["copy", "stats", fingerprint], ids=["copy", "stats", "fingerprint"])
def test_zeros_of_either_sign_are_no_difference_whatever_is_kept(keep: object) -> None:
    one, other = (keeper(keep, Pending())(tensor) for tensor in (torch.zeros(3), -torch.zeros(3)))

    found = compare_infos(one, other, allowed=(0.0, 0.0))

    assert found.identical
    assert not found.differs


@pytest.mark.parametrize("keep", ["copy", "stats", fingerprint], ids=["copy", "stats", "fingerprint"])
@pytest.mark.parametrize("place", [0, 1])
def test_infinity_of_the_other_sign_is_a_difference_whatever_is_kept(keep: object, place: int) -> None:
    elements = torch.randn(5000)
    one, other = elements.clone(), elements.clone()
    one[place], other[place] = math.inf, -math.inf

    assert compare_infos(*(keeper(keep, Pending())(tensor) for tensor in (one, other))).differs
    assert not compare_infos(*(keeper(keep, Pending())(tensor) for tensor in (one, one.clone()))).differs


@pytest.mark.parametrize("keep", ["stats", fingerprint], ids=["stats", "fingerprint"])
def test_what_is_finite_beside_infinity_counts(keep: object) -> None:
    one = torch.full((5000,), 3.0)
    one[7] = math.inf
    other = one.clone()
    other[9] = -50.0

    assert compare_infos(*(keeper(keep, Pending())(tensor) for tensor in (one, other))).differs


@pytest.mark.parametrize("keep", ["copy", "stats", fingerprint], ids=["copy", "stats", "fingerprint"])
@pytest.mark.parametrize("tensor", [torch.full((300,), math.nan), torch.zeros(0)], ids=["NaN", "empty"])
def test_equal_tensors_without_finite_elements_have_no_figures(keep: object, tensor: Tensor) -> None:
    found = compare_infos(*(keeper(keep, Pending())(each) for each in (tensor, tensor.clone())))

    assert (found.differs, found.identical) == (False, True)
    assert math.isnan(found.error)
    assert math.isnan(found.cosine)


def test_a_view_and_its_copy_have_one_fingerprint() -> None:
    whole = torch.randn(33, 7)

    for view in (whole.t(), whole[1:], whole[:, 1], whole[3, 1:]):
        assert same_elements(fingerprint(view), fingerprint(view.clone()))


def test_it_is_small_and_its_size_is_fixed() -> None:
    sizes = [fingerprint(torch.zeros(count))["samples"].numel() for count in (0, 3, 256, 257, 10**6)]

    assert sizes == [0, 3, SAMPLES, SAMPLES, SAMPLES]
    places = positions(10**6, torch.device("cpu"))
    assert bool((places.diff() > 0).all())
    assert int(places.max()) < 10**6


def test_moments_and_digest_show_what_samples_miss() -> None:
    tensor = torch.randn(10_000)
    place = next(each for each in range(10_000) if each not in positions(10_000, tensor.device).tolist())
    large, small = tensor.clone(), tensor.clone()
    large[place] += 100
    small[place] += 1e-4

    assert compare_infos(info(tensor), info(large)).differs
    found = compare_infos(info(tensor), info(small))
    assert not found.identical
    assert compare_infos(info(tensor), info(small), allowed=(0.0, 0.0)).differs


def test_rounding_is_no_difference() -> None:
    tensor = torch.randn(10_000)

    found = compare_infos(info(tensor), info((tensor.double() * (1 + 1e-7)).float()))

    assert not found.differs
    assert not found.identical
    assert found.basis == "samples"


def test_a_fingerprint_and_a_copy_can_be_compared() -> None:
    tensor = torch.randn(1000)
    copy = keeper("copy", Pending())(tensor)

    assert compare_infos(info(tensor), copy).identical


@pytest.mark.parametrize("tensor", [torch.zeros(2, device="meta"), torch.eye(2).to_sparse()], ids=["meta", "sparse"])
def test_odd_tensors_have_one_or_none(tensor: Tensor) -> None:
    assert (fingerprint(tensor) is None) == tensor.is_meta


SAVING = """
import sys, torch, hookline
from hookline.testing import toy
model = toy()
if sys.argv[2] == "changed":
    with torch.no_grad():
        model[2][0].bias[1] += 0.5
with hookline.watch(model, keep=hookline.fingerprint, inputs=hookline.fingerprint) as run, torch.no_grad():
    model(torch.linspace(-1, 1, 12).reshape(3, 4))
run.save(sys.argv[1])
"""


@pytest.mark.slow
def test_runs_that_two_processes_saved_are_compared(tmp_path: object) -> None:
    folders = [f"{tmp_path}/{name}" for name in ("plain", "again", "changed")]
    for folder in folders:
        subprocess.run([sys.executable, "-c", SAVING, folder, folder.rsplit("/")[-1]], check=True)
    plain, again, changed = map(hookline.load, folders)

    assert hookline.diff(plain, again).identical
    found = hookline.diff(plain, changed)
    assert found.culprit is not None
    assert found.culprit.path == "2.0"
    assert found.first is found.culprit
    assert {pair.path for pair in found if not pair.differs} == {"0", "1"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_negated_tensor_has_another_digest(dtype: torch.dtype) -> None:
    for seed in range(100):
        one = torch.randn(80, generator=torch.Generator().manual_seed(seed)).to(dtype)
        assert not same_elements(fingerprint(one), fingerprint(-one))
