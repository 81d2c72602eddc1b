"""Tests of hooked modules inside torch.compile: every call is recorded, whenever the model was compiled, and nothing
that the model gives is changed by it."""

import copy
import enum
import pickle
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.convert_frame import input_codes
from torch._dynamo.exc import PackageError
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

import hookline
from hookline import Run
from hookline.engine.call import here
from hookline.engine.graph_calls import graph_calls

BACKENDS = ("eager", "aot_eager", "inductor")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")  # dynamo looks
        yield


class Block(nn.Module):
    """A linear layer whose output is changed in place, a norm, and a residual; gives a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act, self.norm = nn.Linear(8, 8), nn.ReLU(inplace=True), nn.LayerNorm(8)

    def forward(self, x: Tensor, scale: int = 1) -> dict[str, Any]:
        return {"x": x + self.norm(self.act(self.linear(x))) * scale, "kept": (x, None, "text")}


class Net(nn.Module):
    """Two blocks, the second of which is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](x, scale=2)["x"]
        for _ in range(2):
            x = self.blocks[1](x)["x"]
        return self.head(x)


@pytest.fixture(params=[False, True], ids=["breaks-outside", "breaks-nested"])
def nested(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether dynamo goes on inside the calls in which code breaks a graph."""
    with torch._dynamo.config.patch(nested_graph_breaks=request.param):
        yield request.param


@pytest.fixture
def model() -> nn.Module:
    return Net()


X = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


def step(call: Callable[[Tensor], Tensor], model: nn.Module) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients of the parameters."""
    model.zero_grad()
    output = call(X)
    output.square().sum().backward()
    return output.detach(), [parameter.grad.clone() for parameter in model.parameters()]


class Near(tuple[float, ...]):
    """Figures that are equal to others in as many digits as a compiler keeps."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and tuple(self) == pytest.approx(tuple(other), rel=1e-5, abs=1e-6)

    __hash__ = tuple.__hash__


def told(run: Run) -> list[tuple[Any, ...]]:
    """All that a run says of each call but times."""

    def figures(stats: Any) -> Any:
        names = ("mean", "std", "min", "max", "norm", "zeros", "nan", "inf")
        return stats and Near(getattr(stats, name) for name in names)

    return [
        (
            *(call.path, call.index, call.type, call.parent and call.parent.number, str(call.args), str(call.kwargs)),
            [
                (
                    name,
                    tuple(info.shape),
                    info.requires_grad,
                    figures(info.stats),
                    info.grad and figures(info.grad.stats),
                )
                for name, info in call.named_outputs.items()
            ],
        )
        for call in run
    ]


@pytest.mark.graph
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_model_is_recorded_as_the_eager_one_on_every_call(backend: str, model: nn.Module) -> None:
    with hookline.watch(model, grads=True) as eager:
        step(model, model)
    compiled = torch.compile(model, backend=backend, fullgraph=True)

    with hookline.watch(model, grads=True) as run:
        step(compiled, model)
        step(compiled, model)

    assert told(run)[: len(eager)] == told(eager)
    assert [call.index for call in run][len(eager) :] == [
        call.index + 1 + (call.path.startswith("blocks.1")) for call in eager
    ]


@pytest.mark.graph
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_compiled_before_the_watch_gives_the_same_during_and_after_it(backend: str, model: nn.Module) -> None:
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    output, gradients = step(compiled, model)

    with hookline.watch(model, grads=True) as run:
        during = step(compiled, model)
    after = step(compiled, model)

    assert len(run) == 1 + 3 * 4 + 1
    for other in (during, after):
        assert torch.equal(other[0], output)
        assert all(map(torch.equal, other[1], gradients))


@pytest.mark.graph
def test_watching_again_compiles_nothing_anew(model: nn.Module) -> None:
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    step(compiled, model)
    for _ in range(12):
        with hookline.watch(model, grads=True):
            step(compiled, model)
        step(compiled, model)

    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.graph
def test_there_is_no_graph_break(model: nn.Module) -> None:
    with hookline.watch(model, grads=True):
        found = torch._dynamo.explain(model)(X)

    assert (found.graph_break_count, found.graph_count) == (0, 1)


@pytest.mark.graph
def test_a_model_that_is_compiled_while_it_is_watched_is_recorded(model: nn.Module) -> None:
    with hookline.watch(model) as run:
        torch.compile(model, backend="eager", fullgraph=True)(X)

    assert [call.path for call in run][:3] == ["", "blocks.0", "blocks.0.linear"]


@pytest.mark.graph
def test_the_compiled_model_itself_can_be_watched(model: nn.Module) -> None:
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with hookline.watch(compiled, grads=True) as run:
        step(compiled, model)

    assert [call.path for call in run][:3] == ["", "blocks.0", "blocks.0.linear"]
    assert run[""].type == "Net"
    assert run["head"].output.grad is not None


@pytest.mark.graph
def test_a_model_compiled_in_place_is_recorded(model: nn.Module) -> None:
    model.compile(backend="eager", fullgraph=True)
    with hookline.watch(model, grads=True) as run:
        step(model, model)

    assert [call.path for call in run][:3] == ["", "blocks.0", "blocks.0.linear"]
    assert run["head"].parent is run[""]


@pytest.mark.graph
@pytest.mark.parametrize("way", ["in place", "wrapped"])
def test_a_model_with_compiled_parts_is_recorded(way: str, model: nn.Module) -> None:
    for place, block in enumerate(model.blocks):
        if way == "in place":
            block.compile(backend="eager", fullgraph=True)
        else:
            model.blocks[place] = torch.compile(block, backend="eager", fullgraph=True)
    with hookline.watch(Net(), grads=True) as plain:
        pass

    with hookline.watch(model, grads=True) as run:
        step(model, model)

    assert {*plain.modules} - {"blocks"} == {call.path for call in run}
    assert run["blocks.1.norm", 1].parent is run["blocks.1", 1]
    assert run["blocks.1.norm", 1].output.grad is not None


@pytest.mark.graph
def test_parts_of_one_kind_share_a_graph_still(model: nn.Module) -> None:
    for block in model.blocks:
        block.compile(backend="eager", fullgraph=True)
    with hookline.watch(model):
        model.blocks[0](X)
        model.blocks[1](X)

    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.graph
def test_sizes_that_change_are_recorded_without_compiling_for_each(model: nn.Module) -> None:
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    with hookline.watch(model) as run:
        for size in (3, 5, 9, 17):
            compiled(torch.randn(size, 8))

    assert [call.output.shape[0] for call in run.calls_of("head")] == [3, 5, 9, 17]
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.graph
@pytest.mark.parametrize("keep", ["shape", "tensor", "copy", "histogram"])
def test_whatever_is_kept_is_kept(keep: Any, model: nn.Module) -> None:
    with hookline.watch(model, keep=keep) as eager:
        model(X)
    with hookline.watch(model, keep=keep) as run:
        torch.compile(model, backend="inductor", fullgraph=True)(X)

    for ours, theirs in zip(run, eager, strict=True):
        for name, info in ours.named_outputs.items():
            assert info.shape == theirs.named_outputs[name].shape
            if keep == "copy" or (keep == "tensor" and ours.path == "head"):
                torch.testing.assert_close(info.value, theirs.named_outputs[name].value, rtol=1e-4, atol=1e-5)


@pytest.mark.graph
def test_without_gradients_a_forward_is_recorded_too(model: nn.Module) -> None:
    compiled = torch.compile(model, backend="inductor", fullgraph=True)
    with torch.no_grad(), hookline.watch(model, grads=True) as run:
        compiled(X)

    assert run["head"].output.norm > 0
    assert run["head"].output.grad is None


@pytest.mark.graph
def test_gradients_of_two_forwards_go_to_their_own_calls(model: nn.Module) -> None:
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with hookline.watch(model, grads=True) as run:
        first, second = compiled(X), compiled(X)
        (first.sum() * 3).backward()
        (second.sum() * 5).backward()

    assert [call.output.grad.max for call in run.calls_of("head")] == [3, 5]


class GivesItsWeight(nn.Module):
    """Gives a parameter, and what it makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.weight, x * self.weight


@pytest.mark.graph
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_parameter_that_a_call_gives_keeps_no_hook_of_it(backend: str) -> None:
    model = GivesItsWeight()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with hookline.watch(model, grads=True) as run:
        for _ in range(2):
            sum(part.sum() for part in compiled(X)).backward()

    assert not model.weight._backward_hooks
    assert all(call.outputs[0].grad is not None for call in run)


class Beside(nn.Module):
    """Layers that nothing puts in an order but the code."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Embedding(4, 8) for _ in range(4)])
        self.inner = nn.Sequential(nn.LayerNorm(8), nn.Dropout(0.0))

    def forward(self, ids: Tensor) -> Tensor:
        found = [part(ids) for part in self.parts]
        return self.inner(found[0] + found[1]) + found[2] * found[3]


@pytest.mark.graph
@pytest.mark.parametrize("backend", BACKENDS)
def test_independent_calls_are_recorded_in_order_of_the_code(backend: str) -> None:
    model, ids = Beside().eval(), torch.tensor([[0, 1], [2, 3]])
    with hookline.watch(model) as eager:
        model(ids)
    with hookline.watch(model) as run:
        torch.compile(model, backend=backend, fullgraph=True)(ids)

    assert [(call.path, call.parent and call.parent.path) for call in run] == [
        (call.path, call.parent and call.parent.path) for call in eager
    ]


class Itself(nn.Module):
    """Calls itself, twice at each depth but the last."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor, deeper: int = 2) -> Tensor:
        x = self.linear(x)
        return self(x, deeper - 1) + self(x.sin(), 0) if deeper else x  # type: ignore[no-any-return]


class ByAnother(nn.Module):
    """Calls another, which calls this one."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.other: list[nn.Module] = []

    def forward(self, x: Tensor, deeper: int = 3) -> Tensor:
        x = self.linear(x)
        return self.other[0](x, deeper - 1) if deeper else x  # type: ignore[no-any-return]


class EachOther(nn.Module):
    """Two that call each other, and are called alone too."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = ByAnother(), ByAnother()
        self.one.other, self.two.other = [self.two], [self.one]

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) + self.two(x, 2)  # type: ignore[no-any-return]


class BrokenItself(Itself):
    """Calls itself where no graph can hold that."""

    def forward(self, x: Tensor, deeper: int = 2) -> Tensor:
        x = self.linear(x)
        torch._dynamo.graph_break()
        return self(x, deeper - 1) + self.linear(x) if deeper else x


class Recomputed(Itself):
    """Calls itself by a checkpoint."""

    def forward(self, x: Tensor, deeper: int = 2) -> Tensor:
        x = self.linear(x).sin()
        return checkpoint(self, x, deeper - 1, use_reentrant=False) if deeper else x  # type: ignore[no-any-return]


class Excepting(nn.Module):
    """Goes on where a part of it raises."""

    def __init__(self) -> None:
        super().__init__()
        self.raising, self.other = Raising(), nn.Sequential(nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.raising(x)  # type: ignore[no-any-return]
        except ValueError:
            return self.other(x)  # type: ignore[no-any-return]


class Raising(nn.Module):
    """Raises after it has called a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError(self.linear(x).shape)


def tree(run: Run) -> list[Any]:
    """Which calls a run has, in which order, and inside which."""
    return [(call.path, call.index, call.parent and call.parent.number) for call in run]


@pytest.mark.graph
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [Itself, EachOther, BrokenItself])
def test_a_module_that_calls_itself_is_the_parent_of_those_calls(
    backend: str, kind: type[nn.Module], nested: bool
) -> None:
    model = kind()
    compiled = torch.compile(model, backend=backend, fullgraph=kind is not BrokenItself)
    with hookline.watch(model) as eager:
        for _ in range(3):
            model(X)
    with hookline.watch(model) as run:
        for _ in range(3):
            compiled(X)

    assert tree(run) == tree(eager)


@pytest.mark.graph
@pytest.mark.parametrize("backend", BACKENDS)
def test_after_an_error_that_the_model_handles_itself_calls_are_nested_as_ever(backend: str) -> None:
    model = Excepting()
    with hookline.watch(model) as eager:
        model(X)
    with hookline.watch(model) as run:
        torch.compile(model, backend=backend, fullgraph=True)(X)

    assert tree(run) == tree(eager)


@pytest.mark.graph
@pytest.mark.parametrize("backend", BACKENDS)
def test_module_that_checkpoints_itself_is_parent_of_recomputed_calls(backend: str) -> None:
    model = Recomputed()
    with hookline.watch(model, grads=True) as run:
        for _ in range(2):
            torch.compile(model, backend=backend, fullgraph=True)(X).sum().backward()

    again = [call for call in run if call.recompute]
    assert {call.parent for call in again if call.path == "linear"} == {call for call in again if call.path == ""}
    assert [call.parent for call in run if not call.recompute][:5:2] == [None, run.calls[0], run.calls[2]]


class Colour(enum.StrEnum):
    """Text with names."""

    RED = "red"


class Takes(nn.Module):
    """Takes anything besides a tensor, and gives it back."""

    def forward(self, x: Tensor, anything: Any) -> Any:
        return x * 2, anything


@pytest.mark.graph
@pytest.mark.parametrize(
    "value", [Colour.RED, np.ones(2), torch.Generator(), "it's"], ids=["enum", "array", "generator", "text"]
)
def test_a_watched_graph_takes_what_the_model_takes(value: Any) -> None:
    model = Takes()
    with hookline.watch(model) as run:
        torch.compile(model, backend="eager", fullgraph=True)(X, value)

    assert run[""].args[1] == run[""].output[1]


@pytest.mark.graph
@pytest.mark.parametrize("values", [[2**63], [-(2**63) - 1], [3, 2**64, -(2**70), 4]], ids=["large", "small", "both"])
def test_a_watched_graph_takes_whole_numbers_of_any_size(values: list[int]) -> None:
    model = Takes()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with hookline.watch(model) as run:
        for value in values:
            compiled(X, value)

    assert [(call.args[1], call.output[1]) for call in run] == [(value, value) for value in values]


@pytest.mark.graph
def test_whole_numbers_that_change_are_recorded_without_compiling_for_each() -> None:
    model = Takes()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with hookline.watch(model) as run:
        for value in (1, 2, 3, 2**63 - 1, -(2**63)):
            compiled(X, value)

    assert [call.args[1] for call in run] == [1, 2, 3, 2**63 - 1, -(2**63)]
    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.graph
def test_each_text_is_a_graph_of_its_own() -> None:
    model = Takes()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with hookline.watch(model) as run:
        for text in ("one", "other", "one"):
            compiled(X, text)

    assert [call.args[1] for call in run] == ["one", "other", "one"]
    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.graph
def test_parts_of_a_dict_are_recorded_whatever_their_keys_are() -> None:
    model = Takes()
    with hookline.watch(model) as run:
        torch.compile(model, backend="eager", fullgraph=True)(X, {0: X, "a": X, Colour.RED: X})

    assert [*run[""].args[1]] == [0, "a", "red"]


@torch.compiler.nested_compile_region  # type: ignore[untyped-decorator]
def in_a_region(module: nn.Module, x: Tensor) -> Tensor:
    """The call of a module as a part of the graph that is compiled once."""
    return module(x)  # type: ignore[no-any-return]


class Regions(nn.Module):
    """Calls two layers of a kind, each as a region of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = in_a_region(layer, x)
        return x


@pytest.mark.graph
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_with_nested_regions_runs_while_it_is_watched(backend: str) -> None:
    model = Regions()
    expected = model(X)
    with hookline.watch(model) as run, pytest.warns(UserWarning, match="calls inside invoke_subgraph are not seen"):
        given = torch.compile(model, backend=backend, fullgraph=True)(X)

    torch.testing.assert_close(given, expected)
    assert [call.path for call in run] == [""]


class Chooses(nn.Module):
    """Calls one of two layers, as its input says."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, self.one, self.other, (x,))  # type: ignore[no-any-return]


@pytest.mark.graph
@pytest.mark.parametrize("within", ["cond", "vmap"])
def test_where_a_graph_has_no_room_for_taps_the_model_runs_and_a_warning_says_so(within: str) -> None:
    model = Chooses() if within == "cond" else nn.Linear(8, 8)
    call = model if within == "cond" else torch.func.vmap(model)
    expected = call(X)
    with hookline.watch(model), pytest.warns(UserWarning, match=f"calls inside {within} are not seen"):
        given = torch.compile(call, backend="aot_eager", fullgraph=True)(X)

    torch.testing.assert_close(given, expected)


class Looks(nn.Module):
    """Looks something up, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Embedding(4, 8), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)  # type: ignore[no-any-return]


@pytest.mark.graph
def test_a_graph_that_raises_leaves_nothing_for_the_next_watch() -> None:
    model = Looks()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with hookline.watch(model), pytest.raises(IndexError):
        compiled(torch.tensor([9]))
    with hookline.watch(model) as run:
        model(torch.tensor([1]))

    assert [call.parent and call.parent.path for call in run] == [None, "", "inner", "inner"]
    assert here.running.call is None
    assert not graph_calls.open


@pytest.mark.graph
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("breaks", [False, True], ids=["whole", "broken"])
def test_what_runs_after_a_graph_that_raised_is_nested_as_ever(backend: str, breaks: bool, nested: bool) -> None:
    model = Looks()
    model.inner.insert(1, Itself())
    if breaks:
        model.inner.insert(1, Breaks())
    compiled = torch.compile(model, backend=backend, fullgraph=not breaks)
    good, bad = torch.tensor([1]), torch.tensor([9])
    with hookline.watch(model) as eager:
        model(good)
    with hookline.watch(model) as run:
        for call in (model, compiled, model):
            compiled(good)
            with pytest.raises((IndexError, RuntimeError)):
                compiled(bad)
            done = len(run)
            call(good)
            above = [found.parent and found.parent.number - done for found in run.calls[done:]]
            assert above == [found.parent and found.parent.number for found in eager]


@pytest.mark.graph
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_runs_while_the_error_of_a_graph_is_handled_is_nested_as_ever(backend: str) -> None:
    model = Looks()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with hookline.watch(model) as run:
        try:
            compiled(torch.tensor([9]))
        except (IndexError, RuntimeError):
            model(torch.tensor([1]))

    assert run["", 1].parent is None
    assert not graph_calls.open


@pytest.mark.graph
def test_outermost_calls_of_a_graph_are_not_nested_in_one_that_an_error_ended() -> None:
    model = Excepting()
    with hookline.watch(model, ["raising", "other"]) as run:
        for _ in range(2):
            torch.compile(model, backend="eager", fullgraph=True)(X)

    assert [(call.path, call.parent) for call in run] == [("raising", None), ("other", None)] * 2


@pytest.mark.graph
def test_a_call_that_an_error_ended_keeps_nothing_once_the_call_around_it_has_ended() -> None:
    given: list[Any] = []
    model = Excepting()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with hookline.on(model, "**", before=lambda call: given.append(weakref.ref(call.args[0])), compiled="callback"):
        for _ in range(3):
            compiled(X)

        assert not graph_calls.open
        assert [reference() for reference in given] == [None] * len(given)


@pytest.mark.graph
def test_an_error_of_a_graph_is_recorded_with_the_calls_that_it_ended() -> None:
    model = Looks()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with hookline.watch(model) as run, pytest.raises(IndexError):
        compiled(torch.tensor([9]))

    assert [(call.path, (call.error or "").partition(":")[0]) for call in run] == [
        ("", "IndexError"),
        ("inner", "IndexError"),
        ("inner.0", "IndexError"),
    ]


@pytest.mark.graph
def test_a_call_that_an_earlier_callback_ends_does_not_count(model: nn.Module) -> None:
    def refuse(call: hookline.Call) -> None:
        if call.index == 1:
            raise ValueError("not this time")

    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with hookline.watch(model) as run, hookline.on(model, "head", before=refuse, compiled="callback"):
        compiled(X)
        with pytest.raises(ValueError, match="not this time"):
            compiled(X)
        compiled(X)

    assert [call.index for call in run.calls_of("head")] == [0, 1]
    assert [call.index for call in run.calls_of("")] == [0, 1, 2]


@pytest.mark.graph
def test_callback_may_call_another_compiled_model_and_keeps_gradients() -> None:
    model, other = nn.Sequential(nn.Linear(8, 8)), nn.Sequential(nn.Linear(8, 8))
    both = nn.ModuleDict({"model": model, "other": other})
    compiled, probe = (torch.compile(part, backend="eager", fullgraph=True) for part in (model, other))
    with hookline.on(model, "0", after=lambda call: probe(X), compiled="callback"):
        with hookline.watch(both, grads=True) as run:
            compiled(X).sum().backward()

    assert run["model.0"].output.grad is not None


class Overthrown(nn.Module):
    """Layers that are recomputed in the backward pass, which raises."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def inner(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x))).sin()))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=False).sin()  # type: ignore[no-any-return]


@pytest.mark.graph
def test_a_backward_pass_that_raises_leaves_the_next_call_with_its_own_parent() -> None:
    def refuse(gradient: Tensor) -> None:
        raise RuntimeError("not this time")

    model = Overthrown()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with hookline.watch(model, grads=True) as run:
        x = X.clone().requires_grad_()
        x.register_hook(refuse)
        with pytest.raises(RuntimeError, match="not this time"):
            compiled(x).sum().backward()
        compiled(X)
        model(X)

    assert any(call.recompute for call in run)
    assert [call.parent for call in run.calls_of("")] == [None] * 3
    assert not graph_calls.open


@pytest.mark.graph
def test_a_graph_says_that_it_does_not_see_calls_of_methods() -> None:
    class Encoder(nn.Module):
        def encode(self, x: Tensor) -> Tensor:
            return x * 2

        def forward(self, x: Tensor) -> Tensor:
            return self.encode(x)

    model = Encoder()
    with hookline.watch(model, methods=["encode"]) as run, pytest.warns(UserWarning, match="method encode are not"):
        torch.compile(model, backend="eager", fullgraph=True)(X)

    assert [call.path for call in run] == [""]


@pytest.mark.graph
def test_a_list_inside_of_itself_and_one_of_many_levels_go_through_a_watched_graph() -> None:
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    around: list[Any] = [1]
    around.append(around)
    model = Takes()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with hookline.watch(model) as run:
        assert compiled(X, deep)[1] == deep
        assert compiled(X, around)[1][0] == 1

    assert len(run) == 2


class Checkpointed(nn.Module):
    """Layers of which the first are recomputed in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.last = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(self.first, x, use_reentrant=False))  # type: ignore[no-any-return]


@pytest.mark.graph
def test_after_a_graph_that_recomputes_calls_the_next_are_nested_as_ever() -> None:
    model = Checkpointed()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with hookline.watch(model, grads=True) as run:
        for _ in range(2):
            compiled(X).sum().backward()

    assert any(call.recompute for call in run)
    nested = [(call.path, call.parent and call.parent.path) for call in run if not call.recompute]
    assert nested[: len(nested) // 2] == nested[len(nested) // 2 :]
    assert not graph_calls.open


# Steps


@pytest.mark.graph
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_a_step_is_traced_into_the_graph_and_changes_the_call(backend: str, model: nn.Module) -> None:
    def double(call: hookline.Call) -> None:
        call.output = call.output * 2

    def shift(call: hookline.Call) -> None:
        call.args = (call.args[0] + 1,)

    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with hookline.on(model, "head", before=shift, after=double):
        expected = model(X)
        assert torch.allclose(compiled(X), expected, atol=1e-5)
    assert not torch.allclose(compiled(X), expected, atol=1e-5)


@pytest.mark.graph
def test_an_edit_is_traced_into_the_graph(model: nn.Module) -> None:
    compiled = torch.compile(model, backend="eager", fullgraph=True)

    with hookline.on(model, "blocks.0.norm", after=lambda call: setattr(call, "output", torch.zeros_like(call.output))):
        expected = model(X)
        assert torch.equal(compiled(X), expected)


@pytest.mark.graph
def test_a_callback_is_called_whenever_the_graph_runs(model: nn.Module) -> None:
    seen: list[Any] = []

    def see(call: hookline.Call) -> None:
        seen.append((call.path, call.index, call.parent and call.parent.path, call.output.shape))

    compiled = torch.compile(model, backend="inductor", fullgraph=True)
    with hookline.on(model, ["head", ""], after=see, compiled="callback"):
        compiled(X)
        compiled(X)

    assert seen == [(path, index, above, (4, 2)) for index in (0, 1) for path, above in (("head", ""), ("", None))]


@pytest.mark.graph
def test_a_graph_says_which_steps_it_leaves_out(model: nn.Module) -> None:
    def look(call: hookline.Call) -> None: ...

    with (
        hookline.on(model, "head", backward=look),
        pytest.warns(UserWarning, match="do not run in a graph.*backward hook .*look, added at"),
    ):
        torch.compile(model, backend="eager")(X)


class Breaks(nn.Module):
    """Two layers, and what no graph can hold between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        torch._dynamo.graph_break()
        return self.second(x)


class Raises(Looks):
    """Looks something up, in a call in which code breaks the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.inner.insert(1, Breaks())


@pytest.mark.graph
def test_graph_break_in_a_module_hides_only_its_gradient(nested: bool) -> None:
    model = nn.Sequential(Breaks(), nn.Linear(8, 8))
    told = pytest.warns(UserWarning, match="the gradient of a module's output is not seen if the module's code breaks")
    with told, hookline.watch(model, grads=True) as run:
        torch.compile(model, backend="aot_eager")(X).sum().backward()

    assert [call.path for call in run] == ["", "0", "0.first", "0.second", "1"]
    assert [call.path for call in run if call.output.grad is None] == ([""] if nested else ["", "0"])


def trained(model: nn.Module, x: Tensor) -> None:
    """A step of training, whose backward pass dynamo does not take into a graph."""
    model(x).sum().backward()


def tried(model: nn.Module, x: Tensor) -> Tensor | None:
    """What a model gives; None where it raises."""
    try:
        return model(x)  # type: ignore[no-any-return]
    except (IndexError, RuntimeError):
        return None


@pytest.mark.graph
@pytest.mark.parametrize(
    ("backend", "make", "function", "values"),
    [
        pytest.param("eager", Net, trained, [X, X + 1], id="gradients"),
        pytest.param("aot_eager", Checkpointed, trained, [X, X + 1], id="recomputed"),
        pytest.param("eager", Raises, tried, [torch.tensor([1]), torch.tensor([9])], id="raised"),
    ],
)
def test_what_taps_run_between_graphs_is_not_compiled(
    backend: str, make: Callable[[], nn.Module], function: Any, values: list[Tensor], nested: bool
) -> None:
    model = make()
    compiled = torch.compile(function, backend=backend)
    with hookline.watch(model, grads=True) as run:
        for x in values:
            compiled(model, x)

    code = [reference() for reference in input_codes.seen]
    files = {Path(each.co_filename) for each in code if each is not None}
    ours = {path.name for path in files if path.is_relative_to(Path(hookline.__file__).parent)}
    assert run.calls
    assert ours <= {"traced.py", "site.py"}  # what is to become part of a graph


@pytest.mark.graph
def test_with_compiled_autograd_calls_are_recorded_without_gradients(model: nn.Module) -> None:
    told = pytest.warns(UserWarning, match="a graph does not show gradients under compiled autograd")
    with told, torch._dynamo.config.patch(compiled_autograd=True), hookline.watch(model, grads=True) as run:
        torch.compile(lambda: model(X).sum().backward(), backend="aot_eager")()

    assert len(run) == 14
    assert not [call for call in run for info in call.outputs if info.grad is not None]


@pytest.mark.graph
@pytest.mark.parametrize("first", ["with hooks", "without"])
@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize(
    "put_on",
    [
        hookline.watch,
        lambda model: hookline.on(model, "head", after=lambda call: None),
        lambda model: hookline.on(model, "head", after=lambda call: None, compiled="callback"),
    ],
    ids=["watch", "step", "callback"],
)
def test_what_is_compiled_for_other_processes_is_one_clear_error(
    put_on: Any, fullgraph: bool, first: str, model: nn.Module
) -> None:
    with torch._dynamo.config.patch(caching_precompile=True):
        compiled = torch.compile(model, backend="eager", fullgraph=fullgraph)
        expected = compiled(X) if first == "without" else model(X)
        with put_on(model):
            with pytest.raises(PackageError, match="with hookline's hooks .* while caching_precompile is False, or"):
                compiled(X)
            with torch.compiler.set_stance("force_eager"):
                assert torch.equal(compiled(X), expected)

        assert torch.equal(compiled(X), expected)
    assert not graph_calls.open


@pytest.mark.graph
def test_what_is_compiled_for_this_process_alone_is_recorded_whatever_is_set_later(model: nn.Module) -> None:
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch._dynamo.config.patch(caching_precompile=True), hookline.watch(model) as run:
        compiled(X)

    assert run["head"].parent is run[""]


@pytest.mark.graph
def test_an_error_in_a_graph_leaves_the_next_call_with_its_own_parent(model: nn.Module) -> None:
    failing = [True]

    def fail(call: hookline.Call) -> None:
        if failing.pop() if failing else False:
            raise KeyError("once")

    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with hookline.on(model, "blocks.0.norm", before=fail, compiled="callback"), hookline.watch(model) as run:
        with pytest.raises(KeyError):
            compiled(X)
        compiled(X)

    assert run["", 1].parent is None
    assert run["head"].parent is run["", 1]


class Numbered(nn.Module):
    """Its `__new__` gives it what its state leaves out."""

    def __new__(cls) -> "Numbered":
        made = super().__new__(cls)
        made.__dict__["number"] = 7
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "number"}

    def forward(self, x: Tensor) -> Tensor:
        return x + self.number  # type: ignore[no-any-return]


@pytest.mark.graph
def test_once_a_graph_was_made_a_hooked_module_is_pickled_and_copied_by_its_own_new() -> None:
    model = Numbered()
    with hookline.watch(model):
        torch.compile(model, backend="eager", fullgraph=True)(X)

        assert pickle.loads(pickle.dumps(model)).number == 7
        assert copy.copy(model).number == 7


@pytest.mark.graph
def test_once_a_graph_was_made_a_hooked_module_tells_its_real_class(model: nn.Module) -> None:
    with hookline.watch(model):
        torch.compile(model, backend="eager")(X)
        assert model.__class__ is type(model)
        assert isinstance(model, Net)

    assert model.__class__ is type(model) is Net


# Classes that go on by super()


class Base(nn.Module):
    def forward(self, x):
        return self.scaled(x) + 1

    def scaled(self, x):
        return x * 2


class Middle(Base):
    def scaled(self, x):
        return super().scaled(x) * 3


class Lowest(Middle):
    def forward(self, x):
        return super().forward(x) - self.half(x)

    @classmethod
    def half(cls, x):
        return x / 2


class MakesAnother(nn.Module):
    def __init__(self, depth=0):
        super().__init__()
        self.depth = depth

    def forward(self, x):
        return x + 1 if self.depth else type(self)(1)(x) * 2


@pytest.mark.graph
@pytest.mark.parametrize("kind", [Middle, Lowest, MakesAnother])
@pytest.mark.parametrize("when", ["before", "inside"])
def test_super_in_a_compiled_hooked_module_goes_on_as_without(kind, when):
    model, x = kind(), torch.arange(3.0)
    compiled = torch.compile(model, backend="eager")
    if when == "before":
        compiled(x)
    with hookline.watch(model) as run:
        given = compiled(x)
    assert torch.equal(given, kind()(x))
    assert [call.path for call in run] == [""]


@pytest.mark.graph
def test_a_compiled_hooked_module_equals_its_class_in_the_graph():
    class Asks(nn.Module):
        def forward(self, x):
            return x + 1 if type(self) == Asks else x  # noqa: E721

    model = Asks()
    with hookline.watch(model):
        assert torch.compile(model, backend="eager", fullgraph=True)(torch.zeros(1)) == 1
