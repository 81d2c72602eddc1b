"""The oracle: any program of forward hooks does on ours, at each height, what it does on PyTorch's own call."""

import pytest
from hypothesis import HealthCheck, example, given, settings

from parity.programs import ENGINES, Call, Mutate, Register, Remove, programs, pytorch, run_program

SEE = {"doing": "see", "target": 0, "with_kwargs": False, "prepend": False, "always_call": False}


def hook(where, phase, **changes):
    return Register(where, phase, **{**SEE, **changes})


CALL, FAILS = Call("root", None, False), Call("root", "leaf", False)
REMOVES_ONE_THAT_TAKES_KWARGS = [
    hook("left", "before", doing="remove", target=7),
    hook("left", "before", with_kwargs=True),
    hook("left", "before"),
    *[CALL] * 3,
]
REMOVES_ONE_AFTER_THAT_TAKES_KWARGS = [
    hook("left", "after", doing="remove", target=7),
    hook("left", "after", with_kwargs=True),
    hook("left", "after"),
    *[CALL] * 3,
]
ADDS_ONE_WHILE_THE_PLAN_RUNS = [hook("left", "before", doing="add", target=5), *[CALL] * 3]
ADDS_ONE_WHILE_THE_PLAIN_PLAN_RUNS = [
    hook("left", "after"),
    hook("leaf", "before", doing="add", target=5),
    *[CALL] * 3,
]
GLOBAL_ALWAYS_WITH_KWARGS_FAILS_QUIETLY = [hook(None, "after", with_kwargs=True, always_call=True), FAILS]
ALWAYS_AFTER_ONE_THAT_RAISED = [
    hook("left", "after", always_call=True),
    hook("left", "after", doing="raise"),
    hook("left", "after", always_call=True, with_kwargs=True),
    CALL,
]
STASHED_CHANGED_AND_RESTORED = [
    hook("left", "after"),
    CALL,
    Mutate("left", "_forward_hooks", "stash", 0, "see"),
    CALL,
    Mutate("left", "_forward_hooks", "update stash", 3, "replace"),
    CALL,
    Mutate("left", "_forward_hooks", "restore", 0, "see"),
    CALL,
    Remove(0),
    CALL,
]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(program=REMOVES_ONE_THAT_TAKES_KWARGS)
@example(program=REMOVES_ONE_AFTER_THAT_TAKES_KWARGS)
@example(program=ADDS_ONE_WHILE_THE_PLAN_RUNS)
@example(program=ADDS_ONE_WHILE_THE_PLAIN_PLAN_RUNS)
@example(program=GLOBAL_ALWAYS_WITH_KWARGS_FAILS_QUIETLY)
@example(program=ALWAYS_AFTER_ONE_THAT_RAISED)
@example(program=STASHED_CHANGED_AND_RESTORED)
@given(program=programs)
def test_a_hook_program_does_what_it_does_on_pytorchs_call(engine, program):
    assert run_program(engine, program) == run_program(pytorch, program)
