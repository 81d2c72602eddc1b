"""Tests of tools that run a compiled model as it is written: they say so, and leave it compiled."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hookline

X = torch.randn(4, 8)
ONCE: dict[str, Callable[[nn.Module], Any]] = {
    "profile": lambda model: hookline.profile(model, X, repeat=1, warmup=0),
    "check": lambda model: hookline.check(model, X),
}


class Counted:
    """A backend that counts how often its graphs run."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            self.runs += 1
            return graph(*args)

        return run


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("tool", ONCE)
def test_a_tool_says_that_it_runs_a_compiled_model_uncompiled(tool: str, model: nn.Module) -> None:
    with pytest.warns(UserWarning, match="^the model is compiled: .*ed uncompiled, since") as told:
        ONCE[tool](torch.compile(model))

    assert [each.filename for each in told if each.category is UserWarning] == [__file__]


class Decorated(nn.Linear):
    """A layer whose forward is compiled."""

    @torch.compile(backend="eager")
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class NotCompiled(nn.Linear):
    """A layer whose forward is kept out of graphs."""

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize("tool", ONCE)
def test_a_tool_names_the_parts_whose_forward_is_compiled(tool: str) -> None:
    with pytest.warns(UserWarning, match="^0 is compiled: "):
        ONCE[tool](nn.Sequential(Decorated(8, 8), NotCompiled(8, 2)))


@pytest.mark.parametrize("tool", ONCE)
def test_a_tool_names_the_parts_that_are_compiled(tool: str, model: nn.Module) -> None:
    model[1].compile()  # type: ignore[operator]
    with pytest.warns(UserWarning, match="^1 is compiled: "):
        ONCE[tool](model)


@pytest.mark.graph
@pytest.mark.parametrize("tool", ONCE)
@pytest.mark.parametrize("used", [True, False])
def test_afterwards_the_graph_runs_as_before(used: bool, tool: str, model: nn.Module) -> None:
    backend = Counted()
    compiled = torch.compile(model, backend=backend)
    if used:
        compiled(X)
    with pytest.warns(UserWarning, match="is compiled"):
        ONCE[tool](compiled)
    before = backend.runs
    compiled(X)

    assert before == used
    assert backend.runs == before + 1


@pytest.mark.parametrize("tool", ONCE)
def test_the_modules_of_a_compiled_model_are_seen(tool: str, model: nn.Module) -> None:
    with pytest.warns(UserWarning, match="is compiled"):
        found = ONCE[tool](torch.compile(model))

    calls = found if tool == "profile" else found.run
    assert [call.path for call in calls] == ["", "0", "1", "1.0", "1.1"]


@pytest.mark.parametrize("tool", ONCE)
def test_where_nothing_is_compiled_nothing_is_said(tool: str, model: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ONCE[tool](model)


class Half(nn.Module):
    """Half of what it is given is not a number."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (x > 0)


@pytest.mark.graph
def test_check_sees_figures_in_a_graph_and_notes_what_it_misses(model: nn.Module) -> None:
    model[1][0] = Half()  # type: ignore[index,operator]
    left_out = pytest.warns(UserWarning, match=f"do not run in a graph.*added at {__file__}")
    with left_out as told, hookline.check(model) as findings:
        torch.compile(model, backend="eager")(X)

    assert findings.found[0].path == "1.0"
    assert [each.category for each in told].count(UserWarning) == 1
