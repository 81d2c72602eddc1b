"""The three heights, and that the engine leaves no trace: what a model is, and what it can be done with, hooked and after."""

import asyncio
import contextvars
import copy
import io
import pickle
import sys
import threading
import weakref
from collections import OrderedDict

import accelerate.hooks
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import hookline
from hookline.engine.hook_dicts import HOOK_DICTS


def nothing(call):
    pass


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2)))


@pytest.fixture
def x():
    return torch.ones(2, 3)


def traces(model):
    """All that an attachment could leave behind."""
    return [
        (type(module), [*module.__dict__], [id(module.__dict__[name]) for name in HOOK_DICTS])
        for module in model.modules()
    ]


def hook_all(model):
    return hookline.on(model, "**", before=nothing, after=nothing, always=nothing)


# One instance


def test_removing_the_handle_undoes_exactly_what_was_attached(model):
    before = traces(model)
    handle = hook_all(model)
    assert traces(model) != before
    handle.remove()
    assert traces(model) == before


def test_removing_twice_is_harmless(model):
    handle = hook_all(model)
    handle.remove()
    handle.remove()
    assert not handle.active


def test_a_with_block_undoes_it_also_after_an_exception(model):
    before = traces(model)
    with pytest.raises(KeyError), hook_all(model):
        raise KeyError
    assert traces(model) == before


def test_two_attachments_come_off_in_any_order(model, x):
    before, seen = traces(model), []
    first = hookline.on(model, "0", before=lambda call: seen.append("first"))
    second = hookline.on(model, "0", before=lambda call: seen.append("second"))
    first.remove()
    model(x)
    second.remove()
    assert seen == ["second"]
    assert traces(model) == before


class Registering(nn.Module):
    subclasses = []

    def __init_subclass__(cls, *, permit, **kwargs):
        cls.subclasses.append(cls.__name__)
        super().__init_subclass__(**kwargs)


def test_hooking_an_instance_does_not_run_what_its_class_does_when_it_is_subclassed():
    with hook_all(nn.Sequential(Registering())):
        pass
    assert Registering.subclasses == []


def test_where_one_module_cannot_be_hooked_none_is():
    class Closed(nn.Module):
        __slots__ = ("extra",)

        def __call__(self, x):  # which does not look into the slot
            return x

        def __init_subclass__(cls, *, permit, **kwargs):
            super().__init_subclass__(**kwargs)

    model = nn.Sequential(nn.ReLU(), Closed())
    with pytest.raises(hookline.AttachError, match=r"^1 cannot be hooked: its class .*Closed cannot be subclassed"):
        hook_all(model)
    assert type(model) is nn.Sequential
    assert type(model[0]) is nn.ReLU


def test_a_class_whose_instances_have_slots_can_be_hooked():
    class Slotted(nn.Module):
        __slots__ = ("extra",)

        def forward(self, x):
            return x

    module, seen = Slotted(), []
    with hookline.on(module, "**", before=lambda call: seen.append(call.path)):
        assert module(1) == 1
    assert seen == [""]
    assert type(module) is Slotted


def test_what_is_set_on_the_class_of_a_hooked_instance_stays_on_the_class():
    class Counting(nn.Module):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            return x

    module = Counting()
    with hook_all(module):
        module(1)
        type(module).forward = lambda self, x: x + 1
        assert module(1) == 2
    assert Counting.calls == 1
    assert Counting()(1) == 2


def test_a_graph_module_recompiled_while_hooked_keeps_its_new_code(x):
    model = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU()))
    with hook_all(model):
        for node in model.graph.nodes:
            if node.op == "call_module":
                node.op, node.target = "call_function", torch.neg
        model.recompile()
        assert torch.equal(model(x), -x)
    assert torch.equal(model(x), -x)


def test_a_step_can_remove_its_own_handle(model, x):
    seen = []

    def once(call):
        seen.append(call.path)
        handle.remove()

    handle = hookline.on(model, "0", before=once)
    model(x)
    model(x)
    assert seen == ["0"]
    assert type(model[0]) is nn.Linear


def test_a_call_bound_while_hooked_is_the_plain_call_afterwards():
    class Times(nn.Identity):
        def __call__(self, x):
            return super().__call__(x) * 5

    module = Times()
    with hook_all(module):
        bound = module.__call__
    assert bound(1) == 5


def test_copied_dict_runs_no_hooks_once_they_are_removed(x):
    module, seen = nn.ReLU(), []
    with hookline.on(module, "**", before=lambda call: seen.append(1)):
        twin = type(module).__new__(type(module))
        twin.__dict__.update(module.__dict__)
    twin(x)
    assert seen == []


def test_a_module_made_of_a_hooked_ones_dict_can_be_watched_and_copied(x):
    class Wrapper(nn.Module):
        def __init__(self, base):
            self.__dict__.update(base.__dict__)

        def forward(self, x):
            return x

    with hook_all(nn.ReLU()) as _, hook_all(base := nn.ReLU()):
        wrapper = Wrapper(base)
        with hookline.watch(wrapper) as run:
            wrapper(x)
        assert len(run) == 1
        assert copy.deepcopy(wrapper)(x) is x


def test_a_replica_as_data_parallel_makes_it_is_recorded_under_its_path(model, x):
    with hookline.watch(model) as run:
        replica = model._replicate_for_data_parallel()
        replica._modules = dict(model._modules)
        replica(x)
    assert [call.path for call in run] == ["", "0", "1", "2", "2.0"]


def test_a_hooked_module_says_that_it_is_what_it_was(model):
    with hook_all(model):
        assert isinstance(model[0], nn.Linear)
        assert model[0].__class__ is nn.Linear
        assert type(model[0]).__name__ == "Linear"
        assert type(model[0]).__module__ == nn.Linear.__module__
        hooked = repr(model)
    assert hooked == repr(model)


def test_state_dict_and_parameters_are_the_same_objects(model):
    before = [(name, id(parameter)) for name, parameter in model.named_parameters()]
    keys = [*model.state_dict()]
    with hook_all(model):
        assert [(name, id(parameter)) for name, parameter in model.named_parameters()] == before
        assert [*model.state_dict()] == keys


def test_a_hooked_model_moves_and_loads(model, x):
    with hook_all(model):
        model.to(torch.float64).load_state_dict(copy.deepcopy(model.state_dict()))
        assert model(x.double()).dtype == torch.float64


COPIES = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "torch.save": lambda model: torch.load(saved(model), weights_only=False),
}


def saved(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_of_a_hooked_model_is_the_plain_model(model, x, copied):
    with hook_all(model):
        twin = copied(model)
        assert type(twin) is nn.Sequential
        assert [*twin.__dict__] == [*nn.Sequential().__dict__]
        if copied is not copy.copy:  # which shares the children, hooked as they are
            assert type(twin[0]) is nn.Linear
            assert [*twin[0].__dict__] == [*nn.Linear(1, 1).__dict__]
        assert torch.equal(twin(x), model(x))


def test_pickles_of_a_hooked_and_of_the_plain_model_are_the_same_bytes(model):
    plain = pickle.dumps(model)
    with hook_all(model):
        assert pickle.dumps(model) == plain


@pytest.mark.parametrize("copied", [copy.deepcopy, COPIES["torch.save"]])
def test_a_parametrized_module_is_copied_or_refused_as_it_is_unhooked(model, copied):
    parametrize.register_parametrization(model[0], "weight", nn.Identity())

    def outcome():
        try:
            return [name for name, value in copied(model)[0].__dict__.items() if value is not None]
        except RuntimeError as error:
            return str(error)

    plain = outcome()
    with hook_all(model):
        assert outcome() == plain


def test_a_parametrization_registered_on_a_hooked_module_stays_when_the_hooks_go(model, x):
    class Double(nn.Module):
        def forward(self, weight):
            return 2 * weight

    seen = []
    with hookline.on(model, "0", before=lambda call: seen.append(call.path)):
        parametrize.register_parametrization(model[0], "weight", Double())
        model(x)
    assert seen == ["0"]
    assert parametrize.is_parametrized(model[0])
    assert type(model[0]).__name__ == "ParametrizedLinear"
    parametrize.remove_parametrizations(model[0], "weight")
    assert type(model[0]) is nn.Linear


def test_a_lazy_module_becomes_what_it_is_to_be_while_hooked():
    model = nn.Sequential(nn.LazyLinear(2))
    with hook_all(model):
        assert model(torch.ones(1, 3)).shape == (1, 2)
    assert type(model[0]) is nn.Linear
    assert model(torch.ones(1, 3)).shape == (1, 2)


class Twice(accelerate.hooks.ModelHook):
    def post_forward(self, module, output):
        return output * 2


@pytest.mark.parametrize("first", ["accelerate", "hookline"])
def test_accelerates_hook_and_ours_work_in_either_order(model, x, first):
    plain, seen = model(x), []
    if first == "accelerate":
        accelerate.hooks.add_hook_to_module(model, Twice())
    with hookline.on(model, "**", after=lambda call: seen.append(call.path)):
        if first == "hookline":
            accelerate.hooks.add_hook_to_module(model, Twice())
        assert torch.equal(model(x), plain * 2)
    assert seen == ["0", "1", "2.0", "2", ""]
    assert torch.equal(model(x), plain * 2)
    accelerate.hooks.remove_hook_from_module(model)
    assert torch.equal(model(x), plain)


def test_a_class_with_a_call_of_its_own_keeps_it():
    class Loud(nn.Module):
        def __call__(self, *args, **kwargs):
            return ("loud", super().__call__(*args, **kwargs))

        def forward(self, x):
            return x

    module, seen = Loud(), []
    with hookline.on(module, "**", after=lambda call: seen.append(call.output)):
        assert module(1) == ("loud", 1)
    assert seen == [("loud", 1)]


def test_hooks_of_pytorchs_api_put_on_while_hooked_stay_when_the_hooks_go(model, x):
    with hook_all(model):
        handle = model[0].register_forward_hook(lambda module, args, output: output * 0)
        assert torch.equal(model[0](x), torch.zeros(2, 4))
    assert torch.equal(model[0](x), torch.zeros(2, 4))
    handle.remove()
    assert not torch.equal(model[0](x), torch.zeros(2, 4))


def test_backward_hooks_of_pytorchs_api_still_fire_on_a_hooked_module(model, x):
    seen = []
    model[0].register_full_backward_hook(lambda module, grad_input, grad_output: seen.append(grad_output[0].shape))
    with hook_all(model), pytest.warns(UserWarning, match="no inputs require gradients"):
        model(x).sum().backward()
    assert seen == [(2, 4)]


def test_a_scripted_submodule_can_be_hooked_and_is_what_it_was(x):
    model = nn.Sequential(nn.Linear(3, 3), torch.jit.script(nn.ReLU()))
    before, plain, seen = type(model[1]), model(x), []
    with hookline.on(model, "**", after=lambda call: seen.append(call.path)):
        assert torch.equal(model(x), plain)
    assert seen == ["0", "1", ""]
    assert type(model[1]) is before


def test_a_module_dies_though_a_handle_on_it_lives():
    model = nn.Sequential(nn.ReLU())
    handle = hook_all(model)
    gone = weakref.ref(model)
    del model
    assert gone() is None
    handle.remove()


@pytest.mark.graph
def test_compiling_a_hooked_model_gives_the_same(model, x):
    plain = model(x)
    torch._dynamo.reset()
    with hook_all(model):
        assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(x), plain)


# A class


class Pair(hookline.Module):
    def forward(self, x):
        return x, x + 1


def test_hookline_module_is_a_torch_module(x):
    assert isinstance(Pair(), nn.Module)
    assert Pair()(1) == (1, 2)


def test_a_hookline_module_is_pickled_and_copied_with_plain_hook_dicts():
    module = Pair()
    module.register_forward_hook(print_nothing)
    module(1)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert {type(twin.__dict__[name]) for name in HOOK_DICTS} == {OrderedDict}
        assert [*twin._forward_hooks.values()] == [print_nothing]
        assert twin(1) == (1, 2)


def print_nothing(module, args, output):
    pass


def test_a_shallow_copy_of_a_hookline_module_shares_its_hooks_as_in_pytorch():
    module, seen = Pair(), []
    module(1)
    twin = copy.copy(module)
    module.register_forward_hook(lambda *given: seen.append(1))
    twin(1)
    assert seen == [1]
    twin._forward_hooks = {}
    twin(1)
    module(1)
    assert seen == [1, 1]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo reads it
@pytest.mark.parametrize("height", ["class", "process"])
def test_a_compiled_module_of_ours_gives_the_same_and_runs_its_hooks(height):
    torch._dynamo.reset()
    handle = hookline.install() if height == "process" else None
    base = hookline.Module if height == "class" else nn.Module

    class Net(base):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(x).relu()

    try:
        net, x = Net(), torch.randn(2, 3)
        net(x)
        net.register_forward_hook(lambda module, args, output: output + 1)
        expected = net(x)
        assert torch.equal(torch.compile(net, backend="eager", fullgraph=True)(x), expected)
        net.compile(backend="eager", fullgraph=True)
        assert torch.equal(net(x), expected)
    finally:
        if handle:
            handle.remove()


# The process


def test_install_serves_every_module_and_uninstall_takes_it_out():
    before = {name: nn.Module.__dict__.get(name) for name in ("__call__", "_compiled_call_impl", *HOOK_DICTS)}
    hookline.install()
    hookline.install()
    assert nn.Module.__call__ is hookline.Module.__call__
    hookline.uninstall()
    hookline.uninstall()
    assert {name: nn.Module.__dict__.get(name) for name in before} == before


def test_a_model_that_lived_under_the_engine_works_after_it(model, x):
    with hookline.install():
        plain = model(x)
        handle = model[0].register_forward_hook(lambda module, args, output: output * 0)
    assert not torch.equal(model(x), plain)
    handle.remove()
    assert torch.equal(model(x), plain)


def test_hooks_put_on_before_the_engine_run_under_it(model, x):
    seen = []
    handle = model[0].register_forward_hook(lambda *given: seen.append(1))
    with hookline.install():
        model(x)
        handle.remove()
        model(x)
    assert seen == [1]


def test_a_hook_dict_taken_hold_of_before_the_engine_still_counts(model, x):
    hooks, seen = model[0]._forward_hooks, []
    with hookline.install():
        model(x)
        hooks[0] = lambda *given: seen.append(1)
        model(x)
    assert seen == [1]


def test_install_says_so_where_another_call_is_in_place(monkeypatch):
    monkeypatch.setattr(nn.Module, "__call__", lambda self, x: x)
    with pytest.raises(hookline.AttachError, match=r"Module.__call__ has been replaced by .*undo that"):
        hookline.install()
    monkeypatch.undo()
    assert "_forward_hooks" not in vars(nn.Module)


def test_a_handle_that_could_not_be_removed_can_be_removed_later(monkeypatch):
    handle = hookline.install()
    ours = nn.Module.__call__
    nn.Module.__call__ = lambda self, x: x
    with pytest.raises(hookline.AttachError, match="has been replaced"):
        handle.remove()
    nn.Module.__call__ = ours
    handle.remove()
    assert nn.Module.__call__ is not ours


class Static(nn.Module):
    @staticmethod
    def forward(x):
        return x + 1


class ByClass(nn.Module):
    @classmethod
    def forward(cls, x):
        return x + 2


class Builtin(nn.Module):
    forward = torch.relu


class Property(nn.Module):
    @property
    def forward(self):
        return lambda x: x + 3


class Elsewhere(nn.Module):
    def forward(self, x):
        return x

    def __getattribute__(self, name):
        return (lambda x: x + 4) if name == "forward" else super().__getattribute__(name)


@pytest.mark.parametrize("kind", [Static, ByClass, Property, Elsewhere])
def test_a_forward_of_any_kind_is_called_as_pytorch_calls_it(kind, x):
    plain = kind()(x)
    with hookline.install():
        module = kind()
        assert all(torch.equal(module(x), plain) for _ in range(3))
    with hook_all(module):
        assert torch.equal(module(x), plain)


def test_a_forward_replaced_on_the_class_counts_from_the_next_call(x):
    class Changing(nn.Module):
        def forward(self, x):
            return x

    with hookline.install():
        module = Changing()
        module(x)
        module(x)
        Changing.forward = staticmethod(lambda x: x + 1)
        assert torch.equal(module(x), x + 1)


def test_a_traced_module_runs_under_the_engine(model, x):
    with hookline.install():
        traced = torch.jit.trace(model, x)
        assert all(torch.equal(traced(x), model(x)) for _ in range(3))


def test_a_module_that_delegates_to_another_without_super_init_works_as_in_pytorch(x):
    class Proxy(nn.Module):
        def __init__(self, inner):
            self.__dict__["inner"] = inner

        def __getattr__(self, name):
            return getattr(self.__dict__["inner"], name)

        def forward(self, x):
            return self.inner(x) + 1

    with hookline.install():
        assert torch.equal(Proxy(nn.Identity())(x), x + 1)
    proxy = Proxy(nn.Identity())
    with hookline.on(proxy, "", before=nothing):
        assert torch.equal(proxy(x), x + 1)


def test_hooks_replaced_while_the_engine_is_out_count_when_it_is_in_again(x):
    module = nn.Identity()
    with hookline.install():
        module(x)
    module._forward_pre_hooks = OrderedDict({1: lambda module, args: (args[0] * 5,)})
    with hookline.install():
        assert torch.equal(module(x), x * 5)


def test_a_copy_with_hooks_of_its_own_does_not_give_them_to_the_original(x):
    first = nn.Identity()
    with hookline.install():
        first(x)
    second = copy.copy(first)
    second._forward_hooks = OrderedDict({1: lambda module, args, output: output * 5})
    with hookline.install():
        assert torch.equal(second(x), x * 5)
        assert torch.equal(first(x), x)


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook")
@pytest.mark.parametrize("copied", [copy.copy, lambda module: module._replicate_for_data_parallel()])
def test_legacy_hooks_of_a_shallow_copy_are_given_the_copy(copied):
    class Twice(nn.Module):
        def forward(self, x):
            return x * 2

    seen, x = [], torch.ones(2, requires_grad=True)
    with hookline.install():
        module = Twice()
        module.register_backward_hook(lambda module, *gradients: seen.append(module))
        module(x)
        twin = copied(module)
        twin(x).sum().backward()
        del module
        twin(x).sum().backward()
    assert seen == [twin, twin]


def test_compiled_call_is_used_though_a_shallow_copy_shares_hooks(x):
    with hookline.install():
        module = nn.Identity()
        module(x)
        twin = copy.copy(module)
        module._compiled_call_impl = lambda x: x * 5
        twin(x)
        assert torch.equal(module(x), x * 5)
        assert torch.equal(twin(x), x)


def test_hook_dicts_merge_as_ordered_dicts_do():
    module = Pair()
    module.register_forward_hook(print_nothing)
    assert [*(module._forward_hooks | {7: print}).values()] == [print_nothing, print]
    assert [*({7: print} | module._forward_hooks).values()] == [print, print_nothing]


def test_no_hook_is_lost_when_one_thread_registers_while_another_calls(x):
    modules = [nn.Identity() for _ in range(1500)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with hookline.install():
            caller = threading.Thread(target=lambda: [module(x) for module in modules])
            caller.start()
            seen = []
            for module in modules:
                module.register_forward_hook(lambda *given: seen.append(1))
            caller.join()
            seen.clear()
            for module in modules:
                module(x)
    finally:
        sys.setswitchinterval(interval)
    assert len(seen) == len(modules)


def test_compiling_under_the_engine_a_module_whose_hook_is_older_breaks_no_graph(x):
    model = nn.Sequential(nn.ReLU())
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    torch._dynamo.reset()
    with hookline.install():
        assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(x), x * 2)


def test_installs_nest(x):
    with hookline.install():
        with hookline.install():
            pass
        assert nn.Module.__call__ is hookline.Module.__call__
    assert nn.Module.__call__ is not hookline.Module.__call__


def test_a_module_without_super_init_fails_as_in_pytorch():
    class Bare(nn.Module):
        def __init__(self):
            pass

        def forward(self):
            return 1

    def error():
        with pytest.raises(AttributeError) as caught:
            Bare()()
        return str(caught.value)

    plain = error()
    with hookline.install():
        assert error() == plain


# Everywhere


def test_everywhere_sees_every_call_within_the_block_with_its_path(model, x):
    seen = []
    with hookline.everywhere(after=lambda call: seen.append((call.path, call.index, call.parent and call.parent.path))):
        model(x)
        model(x)
    model(x)
    assert seen[:4] == [("0", 0, ""), ("1", 0, ""), ("2.0", 0, "2"), ("2", 0, "")]
    assert len(seen) == 10
    assert seen[-1] == ("", 1, None)


def test_everywhere_changes_calls_as_steps_do(x):
    def double(call):
        call.output = call.output * 2

    with hookline.everywhere(after=double):
        assert torch.equal(nn.Identity()(x), x * 2)


def test_everywhere_is_of_this_thread_alone(model, x):
    seen = []
    with hookline.everywhere(before=lambda call: seen.append(threading.current_thread().name)):
        other = threading.Thread(target=model, args=(x,))
        other.start()
        other.join()
        assert seen == []
        model(x)
    assert set(seen) == {threading.current_thread().name}


def test_everywhere_is_of_this_asyncio_task_alone(model, x):
    seen = []

    async def quiet(started, done):
        await started.wait()
        model(x)
        done.set()

    async def watched(started, done):
        with hookline.everywhere(before=lambda call: seen.append(call.path)):
            started.set()
            await done.wait()
            assert seen == []
            model[1](x)

    async def both():
        started, done = asyncio.Event(), asyncio.Event()
        await asyncio.gather(quiet(started, done), watched(started, done))

    asyncio.run(both())
    assert seen == [""]


def test_everywhere_blocks_nest(x):
    seen = []
    with hookline.everywhere(before=lambda call: seen.append("outer")):
        with hookline.everywhere(before=lambda call: seen.append("inner")):
            nn.Identity()(x)
        nn.Identity()(x)
    assert seen == ["outer", "inner", "outer"]


def test_everywhere_sees_hookline_modules_and_hooked_ones_too(x):
    seen = []
    model = nn.Sequential(Pair())
    with hook_all(model), hookline.everywhere(before=lambda call: seen.append(type(call.module).__name__)):
        model(x)
    assert seen == ["Sequential", "Pair"]


def test_everywhere_leaves_pytorchs_call_as_it_was(x):
    before = nn.Module.__call__
    with pytest.raises(KeyError), hookline.everywhere(before=nothing):
        raise KeyError
    assert nn.Module.__call__ is before
    assert "_forward_hooks" not in vars(nn.Module)


def test_a_block_left_in_another_context_leaves_pytorchs_call_as_it_was():
    before, block = nn.Module.__call__, hookline.everywhere(before=nothing)
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
    assert nn.Module.__call__ is before


def test_blocks_left_in_the_wrong_order_run_the_steps_of_those_that_are_open(x):
    seen = []
    first = hookline.everywhere(before=lambda call: seen.append("first"))
    second = hookline.everywhere(before=lambda call: seen.append("second"))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    nn.Identity()(x)
    second.__exit__(None, None, None)
    nn.Identity()(x)
    assert seen == ["second"]


def test_a_task_started_in_a_block_has_its_steps_no_longer_once_it_is_left(x):
    seen = []

    async def main():
        go = asyncio.Event()

        async def late():
            await go.wait()
            nn.Identity()(x)

        with hookline.everywhere(before=lambda call: seen.append("left")):
            task = asyncio.ensure_future(late())
            await asyncio.sleep(0)
        with hookline.everywhere(before=nothing):
            go.set()
            await task

    asyncio.run(main())
    assert seen == []
