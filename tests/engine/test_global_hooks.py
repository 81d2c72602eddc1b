"""Global hooks of PyTorch's API under the engine: a plan holds them, and whatever changes them, and however, drops it."""

import pickle
import types
from collections import OrderedDict

import pytest
import torch.nn.modules.module as torch_module
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

import hookline
from hookline.engine.global_hooks import GLOBAL_HOOK_DICTS
from hookline.engine.hook_dicts import HookDict


class Plain(nn.Module):
    def forward(self, x):
        return x


@pytest.fixture(params=["class", "process"])
def module(request):
    """A module that our engine has called before."""
    if request.param == "class":
        module = type("Ours", (hookline.Module,), {"forward": lambda self, x: x})()
        module(1)
        yield module
    else:
        with hookline.install():
            module = Plain()
            module(1)
            yield module


def plus(amount):
    return lambda module, args, output: output + amount


def test_a_global_hook_counts_from_the_next_call_and_no_longer_once_it_is_removed(module):
    with register_module_forward_hook(plus(10)):
        assert module(1) == 11
    assert module(1) == 1


def test_a_global_pre_hook_does_too(module):
    with register_module_forward_pre_hook(lambda module, args: args[0] + 10):
        assert module(1) == 11
    assert module(1) == 1


def test_a_dict_changed_directly_counts(module):
    torch_module._global_forward_hooks[7] = plus(10)
    try:
        assert module(1) == 11
    finally:
        del torch_module._global_forward_hooks[7]
    assert module(1) == 1


def test_a_whole_new_dict_counts_and_so_does_the_old_one_put_back(module):
    old = torch_module._global_forward_hooks
    torch_module._global_forward_hooks = OrderedDict({7: plus(10)})
    try:
        assert module(1) == 11
        torch_module._global_forward_hooks[7] = plus(20)
        assert module(1) == 21
    finally:
        torch_module._global_forward_hooks = old
    assert module(1) == 1


def test_a_dict_patched_for_a_while_counts(module, monkeypatch):
    module(1)
    with monkeypatch.context() as patch:
        patch.setattr(torch_module, "_global_forward_pre_hooks", {7: lambda module, args: args[0] * 3})
        assert module(5) == 15
    assert module(5) == 5


def test_a_global_hook_that_comes_while_a_hooked_module_runs_is_seen_to_at_once(module):
    handles = []
    module.register_forward_hook(lambda module, args, output: output + 1)
    module.forward = lambda x: handles.append(register_module_forward_hook(plus(10))) or x
    assert module(1) == 12
    for handle in handles:
        handle.remove()


def test_a_hook_put_on_before_the_engine_runs_under_it_and_can_be_removed():
    handle = register_module_forward_hook(plus(10))
    with hookline.install():
        module = Plain()
        assert [module(1), module(1)] == [11, 11]
        handle.remove()
        assert [module(1), module(1)] == [1, 1]


def test_a_hook_put_on_under_the_engine_stays_after_it_and_can_be_removed():
    with hookline.install():
        handle = register_module_forward_hook(plus(10))
    assert Plain()(1) == 11
    handle.remove()
    assert Plain()(1) == 1


def test_a_global_dict_that_becomes_a_modules_own_counts_for_it(module):
    other = type(module)()
    other._forward_hooks = torch_module._global_forward_hooks
    with register_module_forward_hook(plus(10)):
        assert other(1) == 21
        assert module(1) == 11
    assert other(1) == 1


def test_pytorchs_module_is_told_from_no_other_but_by_its_class(module):
    assert isinstance(torch_module, types.ModuleType)
    assert pickle.loads(pickle.dumps(torch_module)) is torch_module
    assert repr(torch_module).startswith("<module 'torch.nn.modules.module' from")
    torch_module.something = 1
    del torch_module.something
    assert not hasattr(torch_module, "something")


def test_uninstalling_gives_pytorch_its_dicts_back_where_nobody_else_needs_ours(monkeypatch):
    monkeypatch.setattr(hookline.Module, "__subclasses__", list)
    for name in GLOBAL_HOOK_DICTS:  # a handle of an earlier test's may refer to the one that is there
        monkeypatch.setitem(vars(torch_module), name, OrderedDict())
    with hookline.install():
        assert {type(getattr(torch_module, name)) for name in GLOBAL_HOOK_DICTS} == {HookDict}
    assert {type(getattr(torch_module, name)) for name in GLOBAL_HOOK_DICTS} == {OrderedDict}
    assert type(torch_module) is types.ModuleType


def test_where_global_hooks_come_and_go_untold_they_count_all_the_same():
    older = register_module_forward_hook(plus(0))
    with hookline.install():
        plain, hooked = Plain(), Plain()
        hooked.register_forward_hook(plus(5))
        older.remove()
        assert [plain(1), plain(1), hooked(1), hooked(1)] == [1, 1, 6, 6]
        with register_module_forward_hook(plus(10)):
            assert [plain(1), hooked(1)] == [11, 16]
        assert [plain(1), hooked(1)] == [1, 6]


def test_new_dict_counts_though_old_ones_were_held_across_engines(monkeypatch):
    monkeypatch.setattr(hookline.Module, "__subclasses__", list)
    with hookline.install():
        held = [getattr(torch_module, name) for name in GLOBAL_HOOK_DICTS]
    with hookline.install():
        module = Plain()
        module(1)
        monkeypatch.setattr(torch_module, "_global_forward_hooks", OrderedDict({7: plus(10)}))
        assert module(1) == 11
        monkeypatch.undo()
    assert len(held) == 6
