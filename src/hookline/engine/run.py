"""run(plan, call, inner): a call with our own hooks. The only loop over them, and the only path of exceptions."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import is_grad_enabled
from torch.compiler import is_exporting

from hookline.engine.call import Call, here
from hookline.engine.gradient import wire_gradients
from hookline.engine.hook import HookFunction, Phase
from hookline.engine.notes import note_failure, note_late_failure
from hookline.engine.plan import Plan
from hookline.torch_private import is_tracing


def run(plan: Plan, call: Call, inner: Callable[..., Any]) -> Any:
    """The output of one call: `before` hooks, the module (`inner`), `after` hooks, and `always` hooks whatever happens.

    An exception of a hook ends the call; it reaches the caller unchanged, with a note that names the hook.
    """
    running = here.running
    call.parent = running.call
    running.call = call
    hook: HookFunction | None = None
    phase: Phase = "before"
    always: Iterable[HookFunction] = plan.always
    try:
        for hook in plan.before:
            hook(call)

        hook = None
        if call.instead is not None:
            inner, call.instead = partial(call.instead, inner), None  # the function may refer to the call
        wiring = None
        if plan.gradients and is_grad_enabled() and not (is_exporting() or is_tracing()):
            wiring = wire_gradients(plan, call)
            aliases = wiring.of_inputs(call)
            if wiring.changes:
                inner = partial(wiring.restore_after, inner)
        call.output = inner(*call.args, **call.kwargs) if call.kwargs else inner(*call.args)

        phase = "after"
        for hook in plan.after:
            hook(call)

        phase = "always"
        always = iter(plan.always)
        for hook in always:
            hook(call)
        if wiring is not None:
            hook = None
            wiring.of_output(call, aliases)
    except BaseException as error:
        note_failure(error, call, plan.hook_of(hook, phase) if hook is not None else None)
        finish(plan, call, always, error)
        raise
    finally:
        running.call = call.parent
    for hook in plan.ended:
        hook(call)
    return call.output


def finish(plan: Plan, call: Call, always: Iterable[HookFunction], error: BaseException) -> None:
    """After an error: every `always` hook that has not begun. If one raises as well, a note on the first error records
    it."""
    call.error = error
    for hook in always:
        try:
            hook(call)
        except BaseException as late:
            note_late_failure(error, plan.hook_of(hook, "always"), late)
    call.error = None  # the error's traceback refers to this call: a cycle that would keep its tensors
