"""PyTorch's module call, row by row: what it did in 1.7.1 and does still, on its own call and on every height of this engine."""

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.modules.module import (
    register_module_backward_hook,
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

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


def test_a1_pre_hooks_run_global_first_in_order_with_positional_arguments(world, seen):
    module = world.add()
    module.register_forward_pre_hook(record(seen, "own 1"))
    module.register_forward_pre_hook(record(seen, "own 2"))
    with register_module_forward_pre_hook(record(seen, "global")):
        module(5)
    assert seen == [("global", (5,)), ("own 1", (5,)), ("own 2", (5,))]


def test_a2_pre_hook_result_other_than_none_becomes_the_input(world, seen):
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


def test_a7_forward_hooks_run_global_first_and_results_replace_output(world, seen):
    module = world.add()
    module.register_forward_hook(record(seen, "own", "anything"))
    module.register_forward_hook(record(seen, "last"))
    with register_module_forward_hook(record(seen, "global", (1, 2))):
        assert module(5) == "anything"
    assert seen == [("global", (5,), 6), ("own", (5,), (1, 2)), ("last", (5,), "anything")]


class Gives(nn.Module):
    """Gives what a function makes of its input; on the class that a world says."""

    def __new__(cls, world, make):
        class Giving(world.base):
            def forward(self, x):
                return make(x)

        return world.ready(Giving())


NESTS = {
    "a tensor": lambda y: y,
    "the first of a tuple": lambda y: (y, y + 1),
    "the first tensor of a dict": lambda y: {"n": 3, "y": y, "z": y + 1},
    "a list in a tuple": lambda y: ([y, y + 1], y + 2),
}


@pytest.mark.filterwarnings("ignore:Using (a )?non-full backward hook")
@pytest.mark.parametrize("make", NESTS.values(), ids=NESTS)
def test_a8_a_backward_hook_finds_the_first_tensor_of_the_output(world, seen, make):
    module = Gives(world, lambda x: make(x * 2))
    module.register_backward_hook(record(seen, "hook"))
    output = module(torch.ones(2, requires_grad=True))
    list_of(output)[0].sum().backward()
    ((name, grad_input, grad_output),) = seen
    assert name == "hook"
    assert torch.equal(grad_output[0], torch.ones(2))
    assert torch.equal(grad_input[0], torch.full((2,), 2.0))


def list_of(output):
    if isinstance(output, torch.Tensor):
        return [output]
    parts = output.values() if isinstance(output, dict) else output
    return [tensor for part in parts if not isinstance(part, int) for tensor in list_of(part)]


@pytest.mark.filterwarnings("ignore:Using (a )?non-full backward hook")
def test_a8_an_output_without_a_tensor_down_that_way_is_the_error_it_is(world):
    module = Gives(world, lambda x: {"n": 3})
    module.register_backward_hook(lambda *given: None)
    with pytest.raises(StopIteration):
        module(torch.ones(2, requires_grad=True))


@pytest.mark.filterwarnings("ignore:Using (a )?non-full backward hook")
def test_a9_backward_hooks_run_global_first_on_the_node_of_the_tensor(world, seen):
    module = Gives(world, lambda x: (x * 3).exp())
    module.register_backward_hook(lambda owner, *grads: seen.append(("own", owner, *grads)))
    handle = register_module_backward_hook(lambda owner, *grads: seen.append(("global", owner, *grads)))
    x = torch.zeros(2, requires_grad=True)
    try:
        module(x).sum().backward()
    finally:
        handle.remove()
        torch_module._global_is_full_backward_hook = None
    assert [(name, owner is module) for name, owner, *_ in seen] == [("global", True), ("own", True)]
    assert torch.equal(seen[0][2][0], torch.ones(2))  # of the exponential, the last node, and not of the module
    assert torch.equal(x.grad, torch.full((2,), 3.0))


def test_a9_the_hook_is_bound_to_its_module_and_dressed_as_itself(world):
    def named(module, grad_input, grad_output):
        """What it does."""

    module = Gives(world, torch.exp)
    module.register_backward_hook(named)
    node = module(torch.ones(2, requires_grad=True).exp()).grad_fn
    hook, _ = node.register_hook(lambda *given: None).hooks_dict_ref().values()
    assert (hook.__name__, hook.__doc__) == ("named", "What it does.")


def test_a9_what_a_backward_hook_gives_takes_the_place_of_grad_input(world):
    module = Gives(world, torch.neg)
    module.register_backward_hook(lambda module, grad_input, grad_output: (grad_input[0] * 10,))
    x = torch.ones(2, requires_grad=True)
    module(x.exp()).sum().backward()
    torch.testing.assert_close(x.grad, -10 * x.detach().exp())


@pytest.mark.parametrize("x", [torch.ones(2), torch.ones(2, dtype=torch.int64), torch.ones(2, requires_grad=True)])
def test_a10_without_a_grad_fn_no_backward_hook_runs_and_nothing_is_said(world, seen, x):
    module = Gives(world, lambda x: x)
    module.register_backward_hook(record(seen, "hook"))
    with torch.no_grad():
        module(x)
    output = module(x)
    if output.requires_grad:
        output.sum().backward()
    assert seen == []


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
