"""PyTorch's module call, row by row: what it did in 1.7.1 and does still, on its own call and on every height of this engine."""

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

import hookline


class World:
    """Where a row is tried: the class that its modules are made on, and what is done to a model before it is called."""

    def __init__(self, base, ready=lambda model: model):
        self.base = base
        self.ready = ready

        class Add(base):
            def forward(self, x, amount=1):
                return x + amount

        class Scopes(base):
            def __init__(self, fails=False):
                super().__init__()
                self.inner = nn.Identity()
                self.fails = fails

            def forward(self, x):
                y = self.inner(x) * 2
                if self.fails:
                    raise RuntimeError("on purpose")
                return y

        self.add = lambda: ready(Add())
        self.scopes = Scopes


def hooked(model):
    hookline.on(model, "**", before=lambda call: None, after=lambda call: None, always=lambda call: None)
    return model


@pytest.fixture(params=["pytorch", "one class", "the process", "one instance"])
def world(request):
    if request.param == "the process":
        with hookline.install():
            yield World(nn.Module)
    else:
        ready = hooked if request.param == "one instance" else lambda model: model
        yield World(hookline.Module if request.param == "one class" else nn.Module, ready)


@pytest.fixture
def seen():
    return []


def record(seen, name, result=None):
    def hook(module, *given):
        seen.append((name, *given))
        return result

    return hook


def test_a1_global_pre_hooks_run_first_then_the_modules_own_each_in_order_with_the_positional_arguments(world, seen):
    module = world.add()
    module.register_forward_pre_hook(record(seen, "own 1"))
    module.register_forward_pre_hook(record(seen, "own 2"))
    with register_module_forward_pre_hook(record(seen, "global")):
        module(5)
    assert seen == [("global", (5,)), ("own 1", (5,)), ("own 2", (5,))]


def test_a2_a_pre_hooks_none_changes_nothing_and_anything_else_becomes_the_next_input(world, seen):
    module = world.add()
    module.register_forward_pre_hook(record(seen, "none"))
    module.register_forward_pre_hook(record(seen, "tuple", (7,)))
    module.register_forward_pre_hook(record(seen, "after"))
    assert module(5) == 8
    assert seen == [("none", (5,)), ("tuple", (5,)), ("after", (7,))]


def test_a3_a_pre_hooks_result_that_is_no_tuple_is_wrapped_into_one(world, seen):
    module = world.add()
    module.register_forward_pre_hook(record(seen, "bare", 7))
    module.register_forward_pre_hook(record(seen, "after"))
    assert module(5) == 8
    assert seen[-1] == ("after", (7,))


def test_a4_keyword_arguments_reach_the_forward_untouched_and_no_plain_hook(world, seen):
    module = world.add()
    module.register_forward_pre_hook(record(seen, "before"))
    module.register_forward_hook(record(seen, "after"))
    assert module(5, amount=3) == 8
    assert seen == [("before", (5,)), ("after", (5,), 8)]


def scopes_of(module):
    graph = torch.jit.trace(module, torch.ones(1)).inlined_graph
    return [(node.kind(), node.scopeName().split("/")[-1]) for node in graph.nodes()]


def test_a5_under_trace_the_forward_runs_in_the_modules_scope(world):
    model = world.ready(nn.Sequential(world.scopes(), nn.Sequential(world.scopes())))
    scopes = [scope for kind, scope in scopes_of(model) if kind == "aten::mul"]
    assert scopes == ["__module.0", "__module.1.0"]


def test_a5_hooks_run_outside_the_modules_scope(world):
    model = nn.Sequential(world.scopes())
    model[0].register_forward_hook(lambda module, args, output: output - 3)
    scopes = dict(scopes_of(world.ready(model)))
    assert scopes["aten::mul"] == "__module.0"
    assert scopes["aten::sub"] != "__module.0"


def test_a5_the_scope_is_left_when_the_forward_raises(world):
    class Catching(world.base):
        def __init__(self):
            super().__init__()
            self.bad, self.good = world.scopes(fails=True), world.scopes()

        def forward(self, x):
            try:
                return self.bad(x)
            except RuntimeError:
                return self.good(x)

    assert scopes_of(world.ready(Catching()))[-1] == ("aten::mul", "__module.good")


def test_a5_a_scripted_forward_is_called_straight(world):
    traced = torch.jit.trace(world.ready(nn.Sequential(torch.jit.script(nn.ReLU()), world.add())), torch.ones(1))
    assert traced(torch.tensor([-1.0])).item() == 1


def test_a6_otherwise_the_forward_is_called_straight_also_one_set_on_the_instance(world):
    module = world.add()
    module.forward = lambda x: x * 10
    assert module(5) == 50


def test_a7_forward_hooks_run_after_global_ones_first_and_their_results_replace_the_output_as_they_are(world, seen):
    module = world.add()
    module.register_forward_hook(record(seen, "own", "anything"))
    module.register_forward_hook(record(seen, "last"))
    with register_module_forward_hook(record(seen, "global", (1, 2))):
        assert module(5) == "anything"
    assert seen == [("global", (5,), 6), ("own", (5,), (1, 2)), ("last", (5,), "anything")]


def test_a11_a_handle_removes_exactly_its_own_hook_and_a_removed_hook_does_not_run(world, seen):
    module = world.add()
    module.register_forward_hook(record(seen, "first"))
    second = module.register_forward_hook(record(seen, "second"))
    module.register_forward_hook(record(seen, "third"))
    module(0)
    second.remove()
    seen.clear()
    module(0)
    assert [name for name, *_ in seen] == ["first", "third"]


def test_a12_the_call_returns_the_very_object_that_the_forward_gave(world):
    x = torch.ones(1)
    module = world.add()
    module.forward = lambda x: x
    assert module(x) is x


@pytest.mark.parametrize("phase", ["hook", "forward"])
def test_a12_an_exception_reaches_the_caller_unchanged(world, phase):
    error = ValueError("this one")

    def fail(*_):
        raise error

    module = world.add()
    if phase == "hook":
        module.register_forward_hook(fail)
    else:
        module.forward = fail
    with pytest.raises(ValueError) as caught:
        module(1)
    assert caught.value is error
    assert str(error) == "this one"
