"""Tests that the statistics of a tensor are those that float64 arithmetic gives, for every kind of tensor that has any."""

import math
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

from hookline.record import statistics as measuring
from hookline.record.statistics import Pending, Stats, Waiting, measure

DIGITS = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}


def at_once(tensor: Tensor) -> Stats | None:
    stats = measure(tensor, Pending())
    assert not isinstance(stats, Waiting)
    return stats


def as_on_a_device(tensor: Tensor, pending: Pending | None = None) -> Waiting:
    """What `measure` does with a tensor on any device but the CPU, done with one on the CPU."""
    values = measuring.elements(tensor.detach())
    return measuring._measure_later(values, values.numel(), Pending() if pending is None else pending)


def reference(tensor: Tensor) -> Stats:
    """The figures by numpy, in float64."""
    values = tensor.detach().double().numpy()
    with np.errstate(all="ignore"):
        return Stats(
            count=values.size,
            min=float(values.min()),
            max=float(values.max()),
            mean=float(values.mean()),
            std=float(values.std()),
            norm=float(np.sqrt((values**2).sum())),
            zeros=float((values == 0).mean()),
            nan=int(np.isnan(values).sum()),
            inf=int(np.isinf(values).sum()),
        )


def assert_close(stats: Stats | None, expected: Stats, digits: float) -> None:
    assert stats is not None
    assert (stats.count, stats.nan, stats.inf) == (expected.count, expected.nan, expected.inf)
    assert stats.zeros == pytest.approx(expected.zeros, abs=1e-12)
    largest = max(abs(expected.min), abs(expected.max))
    slack = digits * largest if math.isfinite(largest) else 0.0
    for name in ("min", "max", "mean", "std", "norm"):
        assert getattr(stats, name) == pytest.approx(getattr(expected, name), rel=digits, abs=slack, nan_ok=True), name


def elements(special: tuple[float, ...]) -> st.SearchStrategy[float]:
    return st.one_of(st.floats(-100, 100, width=16, allow_subnormal=False), st.sampled_from([0.0, -0.0, *special]))


def arrays(*special: float) -> st.SearchStrategy[np.ndarray]:
    return hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=4, max_side=6), elements=elements(special))


# Against a reference


@pytest.mark.parametrize("dtype", DIGITS, ids=str)
@given(array=arrays())
@settings(max_examples=60, deadline=None)
def test_the_figures_are_those_of_float64_arithmetic(dtype: torch.dtype, array: np.ndarray) -> None:
    tensor = torch.from_numpy(array).to(dtype)

    assert_close(at_once(tensor), reference(tensor), DIGITS[dtype])


@pytest.mark.parametrize("dtype", DIGITS, ids=str)
@given(array=arrays(math.nan, math.inf, -math.inf))
@settings(max_examples=60, deadline=None)
def test_nan_and_inf_are_counted_with_the_figures_of_float64(dtype: torch.dtype, array: np.ndarray) -> None:
    tensor = torch.from_numpy(array).to(dtype)

    assert_close(at_once(tensor), reference(tensor), DIGITS[dtype])


@pytest.mark.parametrize("dtype", DIGITS, ids=str)
@given(array=arrays(math.nan, math.inf, -math.inf))
@settings(max_examples=60, deadline=None)
def test_a_device_gives_the_same_figures_later(dtype: torch.dtype, array: np.ndarray) -> None:
    tensor = torch.from_numpy(array).to(dtype)

    assert_close(as_on_a_device(tensor).fetch(), reference(tensor), DIGITS[dtype])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_integers_are_measured_as_float64(dtype: torch.dtype) -> None:
    tensor = torch.tensor([0, 1, 100, 127], dtype=dtype)

    assert_close(at_once(tensor), reference(tensor), 1e-12)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64], ids=str)
def test_the_larger_unsigned_integers_are_measured(dtype: torch.dtype) -> None:
    assert_close(at_once(torch.tensor([0, 3, 60_000], dtype=dtype)), reference(torch.tensor([0, 3, 60_000])), 1e-12)


def test_large_integers_keep_their_digits() -> None:
    assert at_once(torch.tensor([2**40 + 1, 2**40 + 1])).mean == 2**40 + 1


def test_true_is_1_and_false_is_0() -> None:
    stats = at_once(torch.tensor([True, False, False, False]))

    assert (stats.count, stats.min, stats.max, stats.mean, stats.zeros) == (4, 0.0, 1.0, 0.25, 0.75)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_numbers_are_measured_by_their_magnitudes(dtype: torch.dtype) -> None:
    stats = at_once(torch.tensor([3 + 4j, 0, -5j], dtype=dtype))

    assert (stats.min, stats.max, stats.absmax, stats.norm) == (0.0, 5.0, 5.0, pytest.approx(math.sqrt(50)))
    assert stats.mean == pytest.approx(10 / 3)
    assert stats.zeros == pytest.approx(1 / 3)


def test_a_half_precision_complex_tensor_is_no_error() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="ComplexHalf support is experimental")
        tensor = torch.tensor([3 + 4j, 0]).to(torch.complex32)
        stats = at_once(tensor)

    assert stats is None or stats.max == 5.0


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_float8_is_measured_as_float32(dtype: torch.dtype) -> None:
    tensor = torch.tensor([0.0, 0.5, -2.0, 3.0]).to(dtype)

    assert_close(at_once(tensor), reference(tensor.float()), 1e-6)


def test_an_empty_tensor_has_no_figures() -> None:
    stats = at_once(torch.empty(0, 3))

    assert (stats.count, stats.norm, stats.nan, stats.inf) == (0, 0.0, 0, 0)
    assert all(
        math.isnan(figure) for figure in (stats.min, stats.max, stats.mean, stats.std, stats.zeros, stats.absmax)
    )


def test_a_tensor_of_one_number_has_no_spread() -> None:
    stats = at_once(torch.tensor(-7.0))

    assert (stats.count, stats.min, stats.max, stats.mean, stats.std, stats.norm) == (1, -7.0, -7.0, -7.0, 0.0, 7.0)


@pytest.mark.parametrize(
    ("values", "largest"), [([-3.0, 2.0], 3.0), ([-3.0, 4.0], 4.0), ([1.0, 2.0], 2.0), ([-math.inf, 1.0], math.inf)]
)
def test_absmax_is_the_largest_magnitude(values: list[float], largest: float) -> None:
    assert at_once(torch.tensor(values)).absmax == largest


def test_absmax_is_nan_where_an_element_is() -> None:
    assert math.isnan(at_once(torch.tensor([1.0, math.nan])).absmax)


# Digits


def test_a_small_spread_around_a_large_mean_keeps_its_digits() -> None:
    tensor = torch.normal(1e4, 1e-2, (10_000,), generator=torch.Generator().manual_seed(0))

    assert at_once(tensor).std == pytest.approx(reference(tensor).std, rel=1e-4)
    assert as_on_a_device(tensor).fetch().std == pytest.approx(reference(tensor).std, rel=1e-4)


def test_a_constant_tensor_has_no_spread() -> None:
    assert at_once(torch.full((1000,), 0.1)).std == 0.0


def test_millions_of_elements_lose_no_digits() -> None:
    tensor = torch.randn(2**23 + 5, generator=torch.Generator().manual_seed(0)) + 1

    assert_close(at_once(tensor), reference(tensor), 1e-6)


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-20, 1e20, 1e30, 3e38])
def test_squares_beyond_the_range_of_float32_neither_vanish_nor_overflow(scale: float) -> None:
    tensor = torch.tensor([0.0, 1.0, -0.5, 0.25]) * scale
    expected = reference(tensor)

    assert_close(at_once(tensor), expected, 1e-6)
    assert at_once(tensor).norm == pytest.approx(expected.norm, rel=1e-6)


def test_squares_beyond_the_range_of_float64_neither_vanish_nor_overflow() -> None:
    assert at_once(torch.tensor([3e-200, -4e-200], dtype=torch.float64)).norm == pytest.approx(5e-200)
    assert at_once(torch.tensor([3e200, -4e200], dtype=torch.float64)).norm == pytest.approx(5e200)


def test_half_precision_sums_do_not_overflow() -> None:
    assert at_once(torch.full((100_000,), 60_000.0, dtype=torch.float16)).mean == pytest.approx(60_000, rel=1e-3)


# Kinds of tensor


def views() -> list[Tensor]:
    numbers = torch.arange(-300_000.0, 300_000.0)
    return [
        numbers.view(600, 1000).t(),
        numbers.view(600, 1000)[::2, 1::3],
        numbers.view(10, 6, 100, 100).to(memory_format=torch.channels_last),
        torch.arange(3.0).expand(4, 3),
        torch.arange(6.0)[::2],
    ]


@pytest.mark.parametrize("tensor", views(), ids=["transposed", "strided", "channels last", "expanded", "every second"])
def test_the_order_in_memory_does_not_matter(tensor: Tensor) -> None:
    assert not tensor.is_contiguous()
    assert_close(at_once(tensor), reference(tensor), 2e-5)


def test_a_tensor_that_requires_a_gradient_is_measured() -> None:
    tensor = torch.tensor([1.0, 2.0], requires_grad=True)

    assert at_once(tensor * 2).mean == 3.0
    assert tensor.grad is None


def test_an_inference_tensor_is_measured() -> None:
    with torch.inference_mode():
        tensor = torch.tensor([1.0, 3.0])

    assert at_once(tensor).mean == 2.0


def test_in_inference_mode_any_tensor_is_measured() -> None:
    tensor = torch.tensor([1.0, 3.0], requires_grad=True)

    with torch.inference_mode():
        assert at_once(tensor).mean == 2.0


def test_under_autocast_the_figures_are_the_same() -> None:
    tensor = torch.tensor([1.001, 3.003])

    with torch.autocast("cpu", torch.bfloat16):
        assert at_once(tensor) == measure(tensor, Pending())
    assert at_once(tensor).mean == pytest.approx(2.002)


def test_a_conjugated_tensor_is_measured() -> None:
    assert at_once(torch.tensor([3 + 4j]).conj()).max == 5.0


def test_a_meta_tensor_has_no_statistics() -> None:
    assert at_once(torch.empty(3, device="meta")) is None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_fake_tensor_has_no_statistics(device: str) -> None:
    pending = Pending()
    with FakeTensorMode(shape_env=ShapeEnv()) as mode:
        tensor = torch.empty(3, device=device)
        inside = measure(tensor, pending)

    assert (inside, measure(tensor, pending)) == (None, None)
    assert pending.rows == []
    assert not mode.shape_env.pending_fresh_unbacked_symbols


def warned(make: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Make a tensor of a kind that PyTorch calls a prototype, in beta, or deprecated, once in a process."""

    def making() -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(beta state|prototype stage|deprecated)")
            return make()

    return making


NUMBERS = torch.tensor([[0.0, 3.0], [-4.0, 0.0]])
PARTS = [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0]])]


@pytest.mark.parametrize(
    "to_sparse", [Tensor.to_sparse, Tensor.to_sparse_csr, Tensor.to_sparse_csc], ids=["coo", "csr", "csc"]
)
def test_of_a_sparse_tensor_the_stored_elements_are_measured(to_sparse: Callable[[Tensor], Tensor]) -> None:
    stats = at_once(warned(lambda: to_sparse(NUMBERS))())

    assert (stats.count, stats.min, stats.max, stats.norm, stats.zeros) == (2, -4.0, 3.0, 5.0, 0.0)


def test_elements_stored_twice_in_a_sparse_tensor_are_added_up() -> None:
    tensor = torch.sparse_coo_tensor([[1, 1]], [2.0, 3.0], (4,), check_invariants=False)

    assert (at_once(tensor).count, at_once(tensor).max) == (1, 5.0)


def test_a_sparse_tensor_without_elements_is_empty() -> None:
    assert at_once(torch.zeros(3).to_sparse()).count == 0


def test_a_quantized_tensor_is_measured_by_the_numbers_that_it_stands_for() -> None:
    stats = at_once(warned(lambda: torch.quantize_per_tensor(NUMBERS, 0.5, 0, torch.qint8))())

    assert (stats.count, stats.min, stats.max, stats.norm, stats.zeros) == (4, -4.0, 3.0, 5.0, 0.5)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
def test_of_a_nested_tensor_the_elements_of_all_parts_are_measured(layout: torch.layout) -> None:
    stats = at_once(warned(lambda: torch.nested.nested_tensor(PARTS, layout=layout))())

    assert (stats.count, stats.min, stats.max, stats.mean) == (3, 1.0, 3.0, 2.0)


def test_elements_between_the_parts_of_a_nested_tensor_are_left_out() -> None:
    values, offsets, lengths = torch.arange(10.0).reshape(10, 1), torch.tensor([0, 3, 6, 10]), torch.tensor([1, 2, 1])
    tensor = warned(lambda: torch.nested.nested_tensor_from_jagged(values, offsets, lengths))()

    assert (at_once(tensor).count, at_once(tensor).max) == (4, 6.0)


def test_a_tensor_class_that_raises_has_no_statistics() -> None:
    class Shy(Tensor):
        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise ValueError("not of me")

    assert measure(torch.ones(2).as_subclass(Shy), Pending()) is None


def test_while_a_model_is_traced_nothing_is_measured() -> None:
    seen = []

    def traced(tensor: Tensor) -> Tensor:
        seen.append(measure(tensor, Pending()))
        return tensor + 1

    torch.jit.trace(traced, torch.ones(2), check_trace=False)

    assert seen == [None]


def test_what_vmap_gives_a_function_has_no_statistics() -> None:
    seen = []

    def mapped(tensor: Tensor) -> Tensor:
        seen.append(measure(tensor, Pending()))
        return tensor

    torch.func.vmap(mapped)(torch.ones(3, 2))

    assert seen == [None]


# Measuring changes nothing


def test_measuring_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()

    for tensor in (torch.arange(9.0), torch.arange(9), torch.ones(2, 2).to_sparse()):
        measure(tensor, Pending())
    as_on_a_device(torch.arange(9.0)).fetch()

    assert torch.equal(torch.get_rng_state(), before)


def test_measuring_leaves_the_tensor_and_its_version_alone() -> None:
    tensor = torch.tensor([1.0, math.nan, 1e-30])
    before, version = tensor.clone(), tensor._version

    measure(tensor, Pending())

    assert torch.equal(tensor, before) or tensor[2] == before[2]
    assert tensor._version == version


def test_measuring_adds_nothing_to_a_graph() -> None:
    tensor = torch.ones(3, requires_grad=True) * 2
    saved = []

    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda packed: packed):
        measure(tensor, Pending())

    assert saved == []


def test_a_dispatch_mode_of_the_callers_does_not_see_the_measuring() -> None:
    class Log(TorchDispatchMode):
        seen: list[Any] = []

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen.append(function)
            return function(*args, **(kwargs or {}))

    with Log() as log:
        assert at_once(torch.ones(3)).mean == 1.0
        log.seen.clear()
        tensor = torch.nn.Parameter(torch.ones(3))
        log.seen.clear()
        assert at_once(tensor).mean == 1.0

    assert log.seen == []


def test_a_graph_that_make_fx_traces_holds_nothing_of_the_measuring() -> None:
    def model(tensor: Tensor) -> Tensor:
        measure(tensor, Pending())
        return tensor * 2

    graph = make_fx(model)(torch.ones(3)).graph

    assert [node.name for node in graph.nodes] == ["tensor_1", "mul", "output"]


# Waiting for a device


def test_what_is_on_a_device_waits_there() -> None:
    pending = Pending()

    as_on_a_device(torch.ones(3), pending)
    as_on_a_device(torch.ones(4), pending)

    assert (len(pending.rows), pending.values) == (2, [])


def test_all_that_waits_is_fetched_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pending = Pending()
    waiting = [as_on_a_device(torch.full((2,), float(number)), pending) for number in range(5)]
    transfers = []
    fetch = measuring.fetch
    monkeypatch.setattr(measuring, "fetch", lambda device, rows: transfers.append(len(rows)) or fetch(device, rows))

    assert [one.fetch().mean for one in reversed(waiting)] == [4.0, 3.0, 2.0, 1.0, 0.0]
    assert transfers == [5]
    assert pending.rows == []


def test_what_comes_after_a_fetch_is_fetched_with_the_next() -> None:
    pending = Pending()
    first = as_on_a_device(torch.ones(2), pending)
    first.fetch()
    second = as_on_a_device(torch.full((2,), 2.0), pending)

    assert (second.fetch().mean, first.fetch().mean) == (2.0, 1.0)


def test_several_threads_get_their_own_figures() -> None:
    pending = Pending()
    wrong = []

    def work(number: int) -> None:
        for _ in range(200):
            place = pending.add(torch.full((1,), float(number)))
            if pending.fetch(place) != [number]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def with_histogram(tensor: Tensor) -> Stats:
    stats = measure(tensor, Pending(), bins=measuring.BINS)
    assert isinstance(stats, Stats)
    return stats


def test_a_histogram_counts_the_elements_in_equal_parts_of_the_range() -> None:
    assert with_histogram(torch.arange(24.0).repeat(3)).histogram == (3,) * 24


def test_a_histogram_agrees_with_numpy() -> None:
    tensor = torch.randn(5000, dtype=torch.float64)

    counts, _ = np.histogram(tensor.numpy(), bins=measuring.BINS)

    assert with_histogram(tensor).histogram == tuple(counts)


@pytest.mark.parametrize(
    "values",
    [[1.0, 1.0], [-3e38, 0.0, 3e38], [0.0, 1e-45], [1e-40, 2e-40], [-1.0, 2.0, 5.0]],
    ids=["one value", "a range that overflows", "the smallest number", "subnormal numbers", "a few"],
)
def test_a_histogram_counts_every_element(values: list[float]) -> None:
    histogram = with_histogram(torch.tensor(values)).histogram

    assert histogram is not None
    assert sum(histogram) == len(values)
    assert histogram[0] >= 1


def test_there_is_no_histogram_of_a_range_that_is_not_finite() -> None:
    assert with_histogram(torch.tensor([1.0, math.inf])).histogram is None
    assert with_histogram(torch.tensor([1.0, math.nan])).histogram is None
    assert with_histogram(torch.empty(0)).histogram is None


def test_a_histogram_on_a_device_is_that_on_the_host() -> None:
    tensor, pending = torch.randn(300), Pending()

    later = measuring._measure_later(tensor, 300, pending, measuring.BINS).fetch()

    assert later.histogram == with_histogram(tensor).histogram


def test_no_histogram_is_made_unless_it_is_asked_for() -> None:
    stats = at_once(torch.randn(30))

    assert stats is not None
    assert stats.histogram is None
