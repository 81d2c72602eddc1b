"""Tests of what a compiled graph shows its taps: shapes, or figures that it reduces itself, where that is enough."""

import math
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_cache, run_and_get_code

import hookline
from hookline.record.statistics import Pending, measure

BIG = torch.randn(64, 100, generator=torch.Generator().manual_seed(0))
VALUES: dict[str, Tensor] = {
    "float32": BIG,
    "far from zero": BIG * 1e-3 + 100,
    "huge": BIG * 1e30,
    "tiny": BIG * 1e-30,
    "bfloat16": BIG.bfloat16(),
    "float16": BIG.half(),
    "float64": BIG.double() * 1e200,
    "int64": torch.arange(-50, 50),
    "uint8": torch.arange(50, dtype=torch.uint8),
    "bool": BIG > 0,
    "complex64": torch.complex(BIG, BIG + 1),
    "conjugated": torch.complex(BIG, BIG + 1).conj(),
    "a scalar": torch.tensor(3.0),
    "one element": torch.tensor([-2.0]),
    "empty": torch.empty(0, 4),
    "zeros": torch.zeros(5, 5),
    "all the same": torch.full((1000,), 0.1),
    "transposed": BIG.t(),
    "expanded": torch.ones(3, 1).expand(3, 7),
    "with NaN": torch.tensor([1.0, math.nan, 0.0, -1.0]),
    "with both infinities": torch.tensor([[1.0, math.inf], [-math.inf, 0.0]]),
    "with NaN and inf": torch.tensor([math.inf, math.nan, 0.0]),
}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings(
            "ignore", message="Torchinductor does not support code generation for complex operators"
        )
        yield


class Gives(nn.Module):
    """Gives on what it is given."""

    def forward(self, values: list[Tensor]) -> list[Tensor]:
        return [value.clone() for value in values]


@pytest.fixture(scope="module", params=["aot_eager", "inductor"])
def recorded(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What a compiled graph says of each of the values."""
    model = Gives()
    with warnings.catch_warnings(), hookline.watch(model) as run:
        warnings.simplefilter("ignore")
        torch.compile(model, backend=request.param, fullgraph=True)([*VALUES.values()])
    return dict(zip(VALUES, run[""].output, strict=True))


@pytest.mark.graph
@pytest.mark.parametrize("name", VALUES)
def test_the_figures_of_a_graph_are_those_of_the_tensor(name: str, recorded: dict[str, Any]) -> None:
    expected, found = measure(VALUES[name], Pending()), recorded[name].stats

    assert found.count == expected.count  # type: ignore[union-attr]
    for figure in ("min", "max", "absmax", "zeros", "nan", "inf"):
        assert getattr(found, figure) == pytest.approx(getattr(expected, figure), rel=1e-12, nan_ok=True), figure
    for figure in ("mean", "std", "norm"):
        assert getattr(found, figure) == pytest.approx(
            getattr(expected, figure), rel=2e-5, abs=1e-6 * expected.absmax, nan_ok=True
        ), figure


def written(**watching: Any) -> int:
    """How many tensors of the size of its input the graph of a chain of functions writes."""
    torch._dynamo.reset()
    model = nn.Sequential(nn.GELU(), nn.SiLU(), nn.Tanh())
    with torch.no_grad(), hookline.watch(model, **watching) if watching else nullcontext():
        _, (code,) = run_and_get_code(torch.compile(model, fullgraph=True), BIG)
    return int(code.count("empty_strided_cpu((64, 100)"))


@pytest.mark.graph
def test_for_shapes_a_graph_writes_no_tensor_more() -> None:
    assert written(keep="shape") == written() == 1


@pytest.mark.graph
def test_for_figures_a_graph_does_not_write_every_tensor() -> None:
    assert written(keep="stats") < written(keep="copy")


@pytest.mark.graph
def test_with_a_watch_the_compilers_caches_are_used_still() -> None:
    model = nn.Sequential(nn.Linear(100, 10), nn.ReLU())
    with fresh_cache():
        for _ in range(2):
            torch._dynamo.reset()
            counters.clear()
            with hookline.watch(model) as run:
                torch.compile(model, fullgraph=True)(BIG).sum().backward()

    assert counters["aot_autograd"]["autograd_cache_hit"] == 1
    assert run["1"].output.norm == pytest.approx(model(BIG).norm().item())


@pytest.mark.graph
def test_where_one_watch_wants_tensors_and_another_figures_both_get_theirs() -> None:
    model = nn.Sequential(nn.Linear(100, 10), nn.ReLU())
    with hookline.watch(model) as figures, hookline.watch(model, keep="copy") as copies:
        torch.compile(model, backend="aot_eager", fullgraph=True)(BIG)

    assert figures["1"].output.norm == pytest.approx(copies["1"].output.value.norm().item())


@pytest.mark.graph
@pytest.mark.parametrize("keep", ["tensor", "copy", lambda tensor: tensor])
def test_what_is_kept_of_a_graph_is_not_overwritten_by_it(keep: Any) -> None:
    model = nn.Sequential(nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 100))
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad(), hookline.watch(model, keep=keep) as run:
        compiled(BIG)
        compiled(BIG + 1)
        expected = [model[0](BIG), model[0](BIG + 1)]  # type: ignore[operator]

    for call, value in zip(run.calls_of("0")[:2], expected, strict=True):
        torch.testing.assert_close(call.output.value, value)


@pytest.mark.graph
def test_figures_of_gradients_are_those_of_the_eager_run() -> None:
    model = nn.Sequential(nn.Linear(100, 10), nn.ReLU())
    norms = []
    for call in (model, torch.compile(model, fullgraph=True)):
        with hookline.watch(model, grads=True) as run:
            call(BIG).square().sum().backward()
        norms.append([found.output.grad.norm for found in run])

    assert norms[1] == pytest.approx(norms[0])


class Doubled(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.graph
def test_what_overflows_or_vanishes_in_half_is_counted_as_in_the_eager_run() -> None:
    values = torch.tensor([1.0, 100.0, -200.0, 1e-3, math.nan]).half()
    for model in (nn.Sequential(Doubled(1e3), Doubled(1.0)), nn.Sequential(Doubled(1e-4), Doubled(1e-4))):
        counts = []
        for call in (model, torch.compile(model, fullgraph=True)):
            with torch.no_grad(), hookline.watch(model) as run:
                call(values)
            counts.append([(found.output.inf, found.output.nan, found.output.zeros) for found in run])

        assert counts[1] == counts[0]


class Positive(nn.Module):
    """Gives as many rows as there are positive ones."""

    def forward(self, x: Tensor) -> Tensor:
        return x[x[:, 0] > 0]


@pytest.mark.graph
def test_a_size_that_the_data_tell_breaks_no_graph() -> None:
    model = nn.Sequential(Positive(), nn.ReLU())
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True), hookline.watch(model) as run:  # type: ignore[attr-defined]
        given = torch.compile(model, backend="aot_eager", fullgraph=True)(BIG)

    assert run["1"].output.norm == pytest.approx(given.norm().item())
