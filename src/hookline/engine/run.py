"""run(plan, call, inner): our own steps around a call. The only loop over steps, the only path of their exceptions."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import is_grad_enabled
from torch.compiler import is_exporting

from hookline.engine.call import Call, here
from hookline.engine.gradient import backward_half
from hookline.engine.hook import HookFunction, Phase
from hookline.engine.notes import note_failure, note_late_failure
from hookline.engine.plan import Plan
from hookline.torch_private import is_tracing


def run(plan: Plan, call: Call, inner: Callable[..., Any]) -> Any:
    """The output of one call: `before` steps, the module (`inner`), `after` steps, and `always` steps whatever happens.

    An exception of a step ends the call; it reaches the caller as it is, with a note that says whose it was.
    """
    running = here.running
    call.parent = running.call
    running.call = call
    step: HookFunction | None = None
    phase: Phase = "before"
    always: Iterable[HookFunction] = plan.always
    try:
        for step in plan.before:
            step(call)

        step = None
        if call.instead is not None:
            inner, call.instead = partial(call.instead, inner), None  # what answers may hold the call
        half = None
        if plan.gradients and is_grad_enabled() and not (is_exporting() or is_tracing()):
            half = backward_half(plan, call)
            aliases = half.of_inputs(call)
            if half.changes:
                inner = partial(half.restore_after, inner)
        call.output = inner(*call.args, **call.kwargs) if call.kwargs else inner(*call.args)

        phase = "after"
        for step in plan.after:
            step(call)

        phase = "always"
        always = iter(plan.always)
        for step in always:
            step(call)
        if half is not None:
            step = None
            half.of_output(call, aliases)
    except BaseException as error:
        note_failure(error, call, plan.hook_of(step, phase) if step is not None else None)
        finish(plan, call, always, error)
        raise
    finally:
        running.call = call.parent
    for step in plan.ended:
        step(call)
    return call.output


def finish(plan: Plan, call: Call, always: Iterable[HookFunction], error: BaseException) -> None:
    """After an error: every `always` step that has not begun. One that fails too is told of in a note; the first error
    stands."""
    call.error = error
    for step in always:
        try:
            step(call)
        except BaseException as late:
            note_late_failure(error, plan.hook_of(step, "always"), late)
    call.error = None  # the traceback of the error holds this call: a cycle that would keep its tensors
