"""run(plan, call, inner): our own steps around one call. The only loop over steps, and the only path of their exceptions."""

from collections.abc import Callable
from typing import Any

from hookline.engine.call import Call, live
from hookline.engine.hook import Step
from hookline.engine.notes import note_failed_step, note_failed_forward
from hookline.engine.plan import Plan


def run(plan: Plan, call: Call, inner: Callable[[Call], Any]) -> Any:
    """The output of one call: `before` steps, the module (`inner`), `after` steps, and `always` steps whatever happened.

    An exception of a step ends the call; it reaches the caller as it is, with a note that says whose it was.
    """
    call.parent = live.call
    live.call = call
    step: Step | None = None
    try:
        for step in plan.before:
            step(call)

        step = None
        call.output = inner(call)

        for step in plan.after:
            step(call)
    except BaseException as error:
        _explain(error, plan, call, step)
        finish(plan, call, error)
        raise
    else:
        if plan.always:
            finish(plan, call, None)
        return call.output
    finally:
        live.call = call.parent


def finish(plan: Plan, call: Call, error: BaseException | None) -> None:
    """Run every `always` step, also when one of them fails; the first failure is raised, unless the call has failed already."""
    failure = error
    call.error = error
    for step in plan.always:
        try:
            step(call)
        except BaseException as late:
            note_failed_step(late, plan.hook_of(step), call)
            if failure is None:
                failure = call.error = late
            else:
                failure.add_note(f"hookline: after that, {plan.hook_of(step)}, failed too: {type(late).__name__}: {late}")

    call.error = None  # the traceback of the error holds this call: a cycle that would keep its tensors
    if failure is not error and failure is not None:
        raise failure


def _explain(error: BaseException, plan: Plan, call: Call, step: Step | None) -> None:
    if step is None:
        note_failed_forward(error, call)
    else:
        note_failed_step(error, plan.hook_of(step), call)
