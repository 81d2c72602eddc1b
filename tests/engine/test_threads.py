"""Two threads on one module, one of which adds and removes hooks: none is lost, none runs in a later call."""

import sys
import threading

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import hookline

ROUNDS = 300


@pytest.fixture(autouse=True)
def eager_switching():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def api(register):
    def put_on(module, see):
        return register(module, lambda module, args, *rest: see())

    return put_on


HOOKS = {
    "forward": api(lambda module, hook: module.register_forward_hook(hook)),
    "forward pre": api(lambda module, hook: module.register_forward_pre_hook(hook)),
    "always": api(lambda module, hook: module.register_forward_hook(hook, always_call=True)),
    "global": api(lambda module, hook: register_module_forward_hook(hook)),
    "ours": lambda module, see: hookline.on(module, "", before=lambda call: see()),
    "ours, at the end": lambda module, see: hookline.on(module, "", always=lambda call: see()),
}


@pytest.mark.parametrize("installed", [False, True], ids=["pytorch", "installed"])
@pytest.mark.parametrize("put_on", HOOKS.values(), ids=HOOKS)
def test_hook_of_another_thread_runs_from_adding_until_removal(put_on, installed):
    engine = hookline.install() if installed else None
    module, x = nn.Identity(), torch.ones(1)
    begun, late, failed, stop = [0], [], [], threading.Event()

    def call_on_and_on():
        try:
            while not stop.is_set():
                begun[0] += 1
                module(x)
        except BaseException as error:
            failed.append(error)

    caller = threading.Thread(target=call_on_and_on)
    caller.start()
    try:
        for _ in range(ROUNDS):
            seen, removed_after = [], []

            def see(seen=seen, removed_after=removed_after):
                seen.append(threading.get_ident())
                if removed_after and begun[0] > removed_after[0]:
                    late.append(begun[0])

            handle = put_on(module, see)
            module(x)
            assert threading.get_ident() in seen
            handle.remove()
            removed_after.append(begun[0])
    finally:
        stop.set()
        caller.join()
        if engine:
            engine.remove()
    assert failed == []
    assert late == []


def test_backward_steps_put_on_and_off_while_another_thread_trains():
    module, stop, failed = nn.Linear(2, 2), threading.Event(), []

    def train():
        try:
            while not stop.is_set():
                module(torch.ones(1, 2, requires_grad=True)).sum().backward()
        except BaseException as error:
            failed.append(error)

    trainer = threading.Thread(target=train)
    trainer.start()
    try:
        for _ in range(ROUNDS // 3):
            seen = []
            with hookline.on(module, "", backward=lambda call, seen=seen: seen.append(threading.get_ident())):
                module(torch.ones(1, 2, requires_grad=True)).sum().backward()
            assert threading.get_ident() in seen
    finally:
        stop.set()
        trainer.join()
    assert failed == []
