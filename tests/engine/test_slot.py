"""A hooked module is entered through PyTorch's slot: its type, its class and its copies are what they were."""

import copy
import gc
import os
import pickle
import threading
import weakref

import pytest
import torch
from torch import nn

import hookline
from hookline.engine.site import hooks_lock
from hookline.engine.torch_hooks import decide

X = torch.ones(2, 3)


@pytest.fixture(autouse=True)
def no_graphs():
    """No graph of another test knows the classes."""
    torch._dynamo.reset()


def ignore(call):
    pass


class Makes(nn.Module):
    """Makes another of its kind when it is called."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        self.made = [type(self)()]
        return self.layer(x)


class OwnCall(Makes):
    """Has a call of its own, which does not look into the slot."""

    def __call__(self, x):
        return self.forward(x)


def test_type_of_a_hooked_module_is_its_class():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with hookline.watch(model):
        assert [type(module) for module in model.modules()] == [nn.Sequential, nn.Linear, nn.ReLU]


def test_a_class_has_no_new_subclass_while_hooked():
    class Own(nn.Module):
        pass

    with hookline.on(Own(), "", before=ignore):
        assert Own.__subclasses__() == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Makes, OwnCall])
def test_a_class_of_a_hooked_module_is_freed(kind):
    def use():
        own = type("Own", (kind,), {})
        module = own()
        with hookline.on(module, "", before=ignore):
            module(X)
        return weakref.ref(own)

    found = use()
    gc.collect()  # a stand-in
    gc.collect()  # the class that it stood for
    assert found() is None


def test_a_dict_of_a_module_has_only_the_slot_while_hooked():
    module = nn.ReLU()
    before = [*module.__dict__]
    with hookline.on(module, "", before=ignore):
        assert [*module.__dict__] == [*before, "_compiled_call_impl"]
    assert [*module.__dict__] == before


@pytest.mark.parametrize("kind", [Makes, OwnCall])
def test_what_a_hooked_module_makes_of_its_type_is_plain(kind):
    module = kind()
    with hookline.on(module, "", before=ignore):
        module(X)
        assert type(module.made[0]) is kind


def test_a_stand_in_equals_its_original_in_tables_of_types():
    module = OwnCall()
    with hookline.on(module, "", before=ignore):
        assert type(module) == OwnCall  # noqa: E721
        assert {OwnCall: 1}[type(module)] == 1
        assert type(module) in {OwnCall}
        assert type(module) != Makes  # noqa: E721


@pytest.mark.graph
@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "known to a graph"])
def test_a_model_is_hooked_while_another_thread_copies_it(copied, compiled):
    if compiled:
        torch.compile(nn.Sequential(nn.Linear(3, 3)), backend="eager")(X)
    model, done = nn.Sequential(*(nn.Linear(3, 3) for _ in range(20))), threading.Event()

    def copy_all():
        while not done.is_set():
            copied(model)

    thread = threading.Thread(target=copy_all)
    with hookline.watch(model, keep="shape") as run:
        thread.start()
        for _ in range(30):
            model(X)
        done.set()
        thread.join()
    assert len(run) == 30 * 21


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), copy.copy])
def test_a_copy_of_a_module_with_a_stand_in_is_plain(copied):
    module = OwnCall()
    with hookline.on(module, "", before=ignore):
        twin = copied(module)
        assert type(twin) is OwnCall
        assert [*twin.__dict__] == [*OwnCall().__dict__]


@pytest.mark.graph
def test_a_module_compiled_while_hooked_keeps_its_hooks():
    module, seen = nn.Linear(3, 3), []
    with hookline.on(module, "", after=lambda call: seen.append(call.path), compiled="callback"):
        module.compile(backend="eager")
        module(X)
        module(X)
    assert seen == ["", ""]
    module(X)
    assert seen == ["", ""]


@pytest.mark.graph
def test_a_module_compiled_before_it_is_hooked_runs_its_hooks():
    module, seen = nn.Linear(3, 3), []
    module.compile(backend="eager")
    module(X)
    with hookline.on(module, "", after=lambda call: seen.append(call.path)):
        module(X)
    assert seen == [""]


@pytest.mark.graph
def test_a_graph_of_another_model_does_not_swap_classes():
    torch.compile(nn.Sequential(nn.Linear(3, 3)), backend="eager")(X)
    with hookline.on(nn.GELU(), "", before=ignore) as _, hookline.on(module := nn.Softplus(), "", before=ignore):
        assert type(module) is nn.Softplus


def test_a_module_that_calls_itself_is_seen_each_time():
    class Again(nn.Module):
        def forward(self, depth):
            return self(depth - 1) if depth else 0

    module, seen = Again(), []
    with hookline.on(module, "", before=lambda call: seen.append((call.args[0], call.parent is not None))):
        module(2)
    assert seen == [(2, False), (1, True), (0, True)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_forked_while_another_thread_adds_hooks_can_add_its_own():
    held, forked = threading.Event(), threading.Event()

    def hold():
        with hooks_lock:
            held.set()
            forked.wait(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        with hookline.on(nn.ReLU(), "", before=ignore):
            os._exit(0)
    forked.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_no_plan_is_made_while_a_hook_comes_from_another_thread() -> None:
    with hookline.install():
        module = nn.Identity()
        module(torch.ones(1))
        with hookline.on(module, "", before=lambda call: None):
            decide(module)  # as a call does that has looked into the slot before the hook came
            assert module._forward_hooks.wiring.plan is None
