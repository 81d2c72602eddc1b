"""Our own steps: what a Call tells, what assigning to it does, their order, and the one path of exceptions."""

import contextlib
import dataclasses
import gc
import weakref

import pytest
import torch
from torch import nn

import hookline
from hookline.engine.hook import caller


class Scale(nn.Module):
    def forward(self, x, *, factor=2):
        return x * factor


@pytest.fixture
def model():
    return nn.Sequential(Scale(), nn.Sequential(Scale(), Scale()))


def test_a_step_sees_path_index_parent_arguments_and_output(model):
    seen = []
    with hookline.on(
        model,
        "**",
        after=lambda call: seen.append(
            (call.path, call.index, call.parent and call.parent.path, call.args, call.output)
        ),
    ):
        model(1)
        model(3)
    assert seen[:2] == [("0", 0, "", (1,), 2), ("1.0", 0, "1", (2,), 4)]
    assert seen[-1] == ("", 1, None, (3,), 24)


def test_assigning_arguments_in_a_before_step_changes_what_the_module_gets(model):
    def change(call):
        call.args, call.kwargs = (10,), {"factor": 5}

    with hookline.on(model, "0", before=change):
        assert model[0](1) == 50


def test_assigning_the_output_in_an_after_step_changes_what_the_caller_gets(model):
    def change(call):
        call.output = "mine"

    with hookline.on(model, "0", after=change):
        assert model[0](1) == "mine"


def test_under_everywhere_too_a_function_can_answer_for_a_module(model):
    def answer(call):
        if call.path == "1":
            call.instead = lambda module_call, x: -x

    with hookline.everywhere(before=answer):
        assert model(3) == -6


def test_a_before_step_can_have_a_function_called_instead_of_the_module(model):
    def answer(call):
        call.instead = lambda module_call, x: (x, module_call(x))

    with hookline.on(model, "0", before=answer, after=lambda call: seen.append(call.output)):
        seen = []
        assert model[0](3) == (3, 6)
    assert seen == [(3, 6)]


def test_the_backward_steps_of_an_answered_call_see_the_gradients_of_the_answer():
    seen = []

    def answer(call):
        call.instead = lambda module_call, x: 3 * x

    x = torch.ones(2, requires_grad=True)
    layer = nn.Linear(2, 2)
    with hookline.on(layer, "", before=answer, backward=lambda call: seen.append(call.grad_input[0].tolist())):
        layer(x).sum().backward()
    assert seen == [[3.0, 3.0]]
    assert layer.weight.grad is None


def test_what_a_step_returns_is_ignored(model):
    with hookline.on(model, "0", before=lambda call: (99,), after=lambda call: 99):
        assert model[0](1) == 2


def test_output_is_none_before_the_module_has_run_and_error_is_none_when_all_is_well(model):
    seen = []
    with hookline.on(
        model, "0", before=lambda call: seen.append(call.output), always=lambda call: seen.append(call.error)
    ):
        model[0](1)
    assert seen == [None, None]


def test_steps_run_by_order_and_ties_as_they_were_added(model):
    seen = []
    add = lambda name, order: hookline.on(model, "0", before=lambda call: seen.append(name), order=order)
    with add("a", 0), add("last", 5), add("b", 0), add("first", -1):
        model[0](1)
    assert seen == ["first", "a", "b", "last"]


def test_ours_run_around_pytorchs_hooks(model):
    seen = []
    model[0].register_forward_pre_hook(lambda module, args: seen.append("their pre"))
    model[0].register_forward_hook(lambda module, args, output: seen.append("their post"))
    with hookline.on(model, "0", before=lambda call: seen.append("before"), after=lambda call: seen.append("after")):
        model[0](1)
    assert seen == ["before", "their pre", "their post", "after"]


def test_a_call_inside_of_a_step_is_a_call_of_its_own(model):
    seen = []

    def again(call):
        seen.append((call.index, call.parent))
        if call.index == 0:
            call.module(call.args[0])

    with hookline.on(model, "0", before=again):
        model[0](1)
    assert seen[0] == (0, None)
    assert seen[1][0] == 1
    assert seen[1][1].index == 0


def test_steps_added_or_removed_while_one_runs_count_from_the_next_call(model):
    seen = []
    handles = []

    def add(call):
        handles.append(hookline.on(model, "0", after=lambda call: seen.append("added")))

    with hookline.on(model, "0", before=add):
        model[0](1)
        assert seen == []
        model[0](1)
    assert seen == ["added"]
    for handle in handles:
        handle.remove()


# Exceptions


def fail(call):
    raise ValueError("a step's")


def test_a_step_that_raises_ends_the_call(model):
    seen = []
    with (
        hookline.on(model, "0", before=fail),
        hookline.on(model, "0", before=lambda call: seen.append(1)),
        pytest.raises(ValueError, match="a step's"),
    ):
        model[0](1)
    assert seen == []


@pytest.mark.parametrize("phase", ["before", "after", "always"])
def test_the_error_of_a_step_says_which_step_added_where_in_which_call(model, phase):
    handle, line = hookline.on(model, "1.0", **{phase: fail}), caller()
    with handle, pytest.raises(ValueError, match="a step's") as caught:
        model(1)
    assert caught.value.__notes__ == [
        f"hookline: raised by the {phase} hook fail, added at {line}, in 1.0 (Scale, call 0)"
    ]


def test_the_error_of_a_forward_says_path_class_call_and_arguments():
    model = nn.Sequential(nn.Identity(), nn.Linear(3, 2))
    with (
        hookline.on(model, "**", before=lambda call: None),
        pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught,
    ):
        model(torch.ones(4, 5, dtype=torch.float32))
    assert caught.value.__notes__[0].startswith("hookline: in 1 (Linear, call 0), called with (float32[4, 5] cpu)\n")
    assert len(caught.value.__notes__) == 1


def test_keyword_arguments_are_named_in_the_note(model):
    with hookline.on(model, "0", before=lambda call: None), pytest.raises(TypeError) as caught:
        model[0](torch.ones(2, dtype=torch.int64), factor={"a": torch.ones(1)})
    assert caught.value.__notes__[0].endswith("called with (int64[2] cpu, factor={'a': float32[1] cpu})")


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_always_steps_run_on_every_exception_and_see_it(model, kind):
    seen = []

    def stop(call):
        raise kind("now")

    with (
        hookline.on(model, "0", always=lambda call: seen.append(type(call.error))),
        hookline.on(model, "0", before=stop),
        pytest.raises(kind),
    ):
        model[0](1)
    assert seen == [kind]


def test_every_always_step_runs_though_one_of_them_fails(model):
    seen = []
    with (
        hookline.on(model, "0", always=fail),
        hookline.on(model, "0", always=lambda call: seen.append(str(call.error))),
        pytest.raises(ValueError, match="a step's"),
    ):
        model[0](1)
    assert seen == ["a step's"]


def test_an_always_step_that_fails_after_an_error_leaves_that_error_and_adds_a_note(model):
    def stop(call):
        raise KeyError("first")

    with hookline.on(model, "0", before=stop), hookline.on(model, "0", always=fail), pytest.raises(KeyError) as caught:
        model[0](1)
    assert "after that, always hook fail" in caught.value.__notes__[-1]
    assert "ValueError: a step's" in caught.value.__notes__[-1]


def test_after_an_exception_the_next_call_has_no_parent(model):
    seen = []
    with hookline.on(model, "1.0", before=fail), pytest.raises(ValueError):
        model(1)
    with hookline.on(model, "**", before=lambda call: seen.append(call.parent)):
        model[0](1)
    assert seen == [None]


def test_an_exception_keeps_nothing_of_the_call_alive_once_it_is_gone(model):
    gc.disable()
    try:
        x = torch.ones(3)
        gone = weakref.ref(x)
        with hookline.on(model, "0", before=fail, always=lambda call: None):
            with contextlib.suppress(ValueError):
                model(x)
        del x
        assert gone() is None
    finally:
        gc.enable()


def test_an_error_that_takes_no_note_reaches_the_caller_and_always_steps_run(model):
    @dataclasses.dataclass(frozen=True)
    class Stop(Exception):
        code: int

    def stop(call):
        raise Stop(3)

    seen = []
    with hookline.on(model, "0", before=stop, always=lambda call: seen.append(call.error)), pytest.raises(Stop):
        model[0](1)
    assert seen == [Stop(3)]


def test_one_function_in_two_phases_is_told_apart_in_the_note(model):
    def second_time(call):
        if call.output is not None:
            raise ValueError("now")

    with hookline.on(model, "0", before=second_time, after=second_time), pytest.raises(ValueError) as caught:
        model[0](1)
    assert "raised by the after hook" in caught.value.__notes__[0]


# Bad input


def test_no_step_is_an_error_that_names_the_phases(model):
    with pytest.raises(hookline.ArgumentError, match=r"at least one of before=, after=, always="):
        hookline.on(model, "0")


def test_a_step_that_cannot_be_called_is_an_error(model):
    with pytest.raises(hookline.ArgumentError, match=r"before= takes a function of one argument, the call, not 3"):
        hookline.on(model, "0", before=3)


def test_a_pattern_that_picks_nothing_leaves_no_hook(model):
    with pytest.raises(hookline.SelectionError):
        hookline.on(model, ["0", "nosuch"], before=fail)
    assert model[0](1) == 2
