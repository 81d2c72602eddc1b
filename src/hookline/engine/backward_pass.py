"""One backward pass through one call: the gradients that have arrived, and the backward hooks that receive them."""

import weakref
from collections.abc import Collection
from functools import partial
from typing import Any

from hookline.engine.call import Call, Origin
from hookline.engine.hook import Hook, HookFunction
from hookline.engine.nested_gradients import FIRST, NO_KWARGS, ONE, assigned, fill
from hookline.engine.notes import note_failure, note_gradient
from hookline.engine.plan import Plan
from hookline.engine.tensor_hooks import Gradient
from hookline.errors import GradientError
from hookline.torch_private import at_end_of_backward, current_backward_pass


class CallGradients:
    """What a call with backward hooks leaves in the graph. It refers to no tensor, so a dropped graph is freed at once.

    - `args`, `kwargs`, `output`: their nesting, with a Place for each gradient;
    - `inputs`, `outputs`: the number of tensors in them that require a gradient;
    - `plan`, `origin`: the hooks, and the call that they belong to;
    - `passes`: the backward passes that are running through the call, by number; None before the first.
    """

    args: Any = ()
    kwargs: Any = NO_KWARGS
    output: Any = None
    inputs = 0
    outputs = 0
    plan: Plan
    origin: Origin
    passes: "dict[int, Pass] | None" = None

    def running_pass(self) -> "Pass":
        """The backward pass that runs on this thread now."""
        task = current_backward_pass()
        passes = self.passes
        if passes is None:
            passes = vars(self).setdefault("passes", {})  # setdefault: several threads may get here at once
        now = passes.get(task)
        if now is None:
            now = passes[task] = Pass(self)
            _end_with(task, self)
        return now

    def end(self, task: int) -> None:
        """End a pass: run the hooks if no gradient of an input has run them."""
        now = None if self.passes is None else self.passes.pop(task, None)
        if now is not None and now.begun and not now.done:
            now.late = tuple(range(self.inputs))
            now.run_backward(self)


class Pass:
    """The state of one backward pass through one call. It does not refer to its CallGradients, which refer to it.

    - `output`, `given`: the gradients of the outputs and inputs that have arrived; `new`: those of the inputs as the
      hooks leave them;
    - `late`: the inputs whose gradient flows on before the hooks run;
    - `begun`: whether a gradient of an output has arrived;
    - `seen`, `done`: whether the `backward_before` hooks, and the `backward` hooks, have run;
    - `call`: the Call that hooks receive; None after them, and once the module is gone.
    """

    __slots__ = ("begun", "call", "done", "given", "late", "new", "output", "seen")

    def __init__(self, of: CallGradients) -> None:
        self.call = of.origin.call()
        self.output: list[Gradient] = [None] * of.outputs
        self.given: list[Gradient] = [None] * of.inputs
        self.new = self.given
        self.late: tuple[int, ...] = ()
        self.begun = self.seen = self.done = False

    def see_output(self, place: int, gradient: Gradient) -> None:
        """Store the gradient of an output."""
        self.output[place], self.begun = gradient, True

    def see_input(self, place: int, gradient: Gradient) -> None:
        """Add a gradient of an input."""
        self.given[place] = _sum(self.given[place], gradient)

    def run_backward_before(self, of: CallGradients, held: Collection[int]) -> list[Gradient]:
        """Run the `backward_before` hooks; returns the gradients of the outputs as they leave them. They may assign
        those in `held`; the others have flowed on already, or have not arrived yet."""
        call, old = self.call, self.output
        if call is None:
            return old
        self.seen = True
        filled = call.grad_output = fill(of.output, old)
        _run(of.plan.backward_before, call)
        try:
            self.output = assigned("grad_output", of.output, call.grad_output, filled, old)
            if any(self.output[place] is not old[place] for place in range(of.outputs) if place not in held):
                raise GradientError("a gradient of an output that shares memory with others cannot be assigned")
        except GradientError as error:
            note_gradient(error, call)
            raise
        return self.output

    def release(self, of: CallGradients, place: int) -> Gradient:
        """The gradient to use for an input instead of its own, None to keep its own. The first input to be released
        runs the `backward` hooks."""
        if self.begun and not self.done:
            self.run_backward(of)
        new = None if self.new[place] is self.given[place] else self.new[place]
        if self.done:
            self.new[place] = self.given[place] = None
        return new

    def run_backward(self, of: CallGradients) -> None:
        """Run the `backward` hooks. Afterwards no gradient of an output is kept, and one of an input until it flows
        on."""
        self.done = True
        call, given = self.call, self.given
        if call is None:
            return
        if of.plan.backward_before and not self.seen:
            self.run_backward_before(of, ())  # no single node had the gradients of all outputs
        call.grad_output = self.output[0] if of.output is FIRST else fill(of.output, self.output)
        self.call, self.output = None, [None] * of.outputs
        one = of.args is ONE
        args = call.grad_input = (given[0],) if one else fill(of.args, given)
        kwargs = call.grad_kwargs = {} if one else fill(of.kwargs, given)
        _run(of.plan.backward, call)
        if one and call.grad_input is args and not call.grad_kwargs:
            return
        try:
            new = assigned("grad_input", of.args, call.grad_input, args, given)
            self.new = assigned("grad_kwargs", of.kwargs, call.grad_kwargs, kwargs, new)
            if self.late and any(self.new[place] is not given[place] for place in self.late):
                raise GradientError(
                    "the gradient of an argument was assigned after it had flowed on, since the module changes that "
                    "argument in place; use backward_before, or a hook on the module that made the argument"
                )
        except GradientError as error:
            note_gradient(error, call)
            raise


def _run(hooks: tuple[tuple[Hook, HookFunction], ...], call: Call) -> None:
    for hook, function in hooks:
        if hook.active:
            try:
                function(call)
            except BaseException as error:
                note_failure(error, call, hook)
                raise


def _sum(part: Gradient, gradient: Gradient) -> Gradient:
    """A gradient that arrived in two parts."""
    if part is None or gradient is None:
        return part if gradient is None else gradient
    return part + gradient


# The end of a pass

_waiting: dict[int, list[weakref.ref[CallGradients]]] = {}


def _end_with(task: int, gradients: CallGradients) -> None:
    """Schedule `gradients.end(task)` for the end of this backward pass, for inner calls before outer ones: gradients
    reach the outer call first."""
    waiting = _waiting.get(task)
    if waiting is None:
        for stale in [task for task, others in [*_waiting.items()] if not any(other() for other in [*others])]:
            _waiting.pop(stale, None)  # of a pass that ended with an error; another thread may change the dict
        waiting = _waiting[task] = []
        at_end_of_backward(partial(_end, task))
    waiting.append(weakref.ref(gradients))


def _end(task: int) -> None:
    for reference in reversed(_waiting.pop(task, ())):
        gradients = reference()
        if gradients is not None:
            gradients.end(task)
