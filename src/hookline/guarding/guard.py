"""The hooks of a guard: they check that outputs of modules, and the gradients of these outputs, are finite."""

import logging
import os
import sys
import threading
import time
import weakref
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal, TypeAlias

from torch import Tensor, is_grad_enabled

from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import Handle, make_hooks
from hookline.engine.tensor_hooks import on_gradient
from hookline.errors import NonFiniteError, StoreError
from hookline.guarding.message import failure, maker_of
from hookline.model.select import Selection
from hookline.model.tensors import mirror
from hookline.record.finite import Look, can_be_unfinite, read, waits
from hookline.record.keep import describe
from hookline.record.record import CallRecord, Slot, TensorInfo
from hookline.torch_private import StopRecomputing, at_end_of_backward, current_backward_pass

Then: TypeAlias = Literal["raise", "log"] | Callable[[NonFiniteError], Any]
"""What a guard does with an error: raise it, log it, or call a function with it."""
LAST = float("inf")
MOST_RECENT = 64  # outputs of outermost calls that are recognized when a later call receives them
MOST_WAITING = 4096  # looks on a device that wait for a backward pass, which may never run
logger = logging.getLogger("hookline")


def guarding(
    selection: Selection, *, then: Then, grads: bool, last: int, save: str | os.PathLike[str] | None
) -> Handle:
    """Add a guard to the selected modules, with the arguments of `hookline.guard`; returns the handle that removes
    it."""
    guard = Guard(selection, then=then, grads=grads, last=last, save=save)
    with ExitStack() as undo:
        undo.callback(guard.close)
        undo.enter_context(
            attach(selection, make_hooks(before=guard.begin, always=guard.end, order=LAST, compiled="outside"))
        )
        if not any(module is selection.model for _, module in selection):
            # The calls of the model itself separate the steps; of a compiled model they are all that is visible.
            end = guard.end if "" in selection.modules else guard.leave
            whole = [("", selection.model)]
            undo.enter_context(
                attach(whole, make_hooks(before=guard.begin, always=end, order=LAST, compiled="outside"))
            )
        return Handle(undo.pop_all().close)


def nothing() -> None:
    """The value of `Guard.passing` while no backward pass runs."""


class Step:
    """One outermost call, of the model or of a module that the loop calls directly, and the backward pass after it.

    - `number`: how many steps came before;
    - `known`: the looks at tensors, by id;
    - `given`: the looks at the arguments of each call, by its number;
    - `waiting`: looks whose figures are still on a device;
    - `found`: whether NaN or Inf was found;
    - `expects`: whether a backward pass is expected.
    """

    __slots__ = ("expects", "found", "given", "known", "number", "waiting")

    def __init__(self, number: int) -> None:
        self.number = number
        self.known: dict[int, Look] = {}
        self.given: dict[int, tuple[Look, ...]] = {}
        self.waiting: list[Look] = []
        self.found = self.expects = False

    def look_at(self, tensor: Tensor) -> Look | None:
        """The look at a tensor, if the tensor has not changed since."""
        look = self.known.get(id(tensor))
        return look if look is not None and look.of(tensor) else None


class Guard:
    """The hook functions of one guard and their state: all looks of this step, and the last few of earlier ones."""

    def __init__(self, selection: Selection, *, then: Then, grads: bool, last: int, save: Any) -> None:
        self.model = type(selection.model).__name__
        self.paths = {id(module): path for path, module in selection}
        self.modules = {path: weakref.ref(module) for path, module in selection}
        self.then, self.grads, self.save = then, grads, save
        self.before: deque[Look] = deque(maxlen=last)
        self.running: dict[Call, tuple[CallRecord, tuple[Look, ...]]] = {}
        self.latest = Step(-1)
        self.own = threading.local()
        self.unread: list[Step] = []  # those with looks that wait
        self.reading = threading.RLock()
        self.passing: Callable[[], object] = nothing  # a reference to what the running backward pass calls at its end
        self.calls = 0
        self.began = time.perf_counter()
        self.open = True

    # Forward

    def begin(self, call: Call) -> None:
        """Start the record of a call, and find the looks at its arguments."""
        record = CallRecord()
        record.parent = self._around(call)
        if record.parent is None and current_backward_pass() == -1:
            self._next_step()
        module = call.module
        record.path = self.paths.get(id(module)) or call.path
        record.index, record.type, record.training = call.index, type(module).__name__, module.training
        record.number, record.thread = self.calls, get_ident()
        record.output = record.error = None  # type: ignore[assignment]  # until it returns
        record.seconds = 0.0
        if current_backward_pass() != -1:
            record.recompute = True
        self.calls += 1

        looks: list[Look] = []
        given = partial(self._given, self._step, record, looks)
        record.args = tuple([mirror(value, given) for value in call.args])
        record.kwargs = {name: mirror(value, given) for name, value in call.kwargs.items()}
        self.running[call] = record, tuple(looks)
        self._step.given[record.number] = tuple(looks)
        record.began = time.perf_counter() - self.began

    def end(self, call: Call) -> None:
        """Finish the record of a call, and look at its output."""
        record, inputs = self.running.pop(call, (None, ()))
        if record is None or not self.open:
            return
        record.seconds = time.perf_counter() - self.began - record.began
        if call.error is not None:
            if not isinstance(call.error, StopRecomputing):  # a checkpoint ends its recomputation by raising this
                record.error = f"{type(call.error).__name__}: {call.error}"
            return

        step = self._step
        looks: list[Look] = []
        record.output = mirror(call.output, partial(self._gave, step, record, looks))
        for look in looks:
            look.inputs = inputs
            self._settle(step, look)
        if record.parent is None:
            mirror(call.output, partial(self._remember, step, record))
            self._expect_backward(step, call)

    def leave(self, call: Call) -> None:
        """Finish the record of a call of the model where only modules inside it are guarded."""
        record, _ = self.running.pop(call, (None, ()))
        if record is not None and record.parent is None:
            self._expect_backward(self._step, call)

    @property
    def _step(self) -> Step:
        """The step of this thread; the latest one where the thread has begun none, as autograd's threads do."""
        step: Step = getattr(self.own, "step", self.latest)
        return step

    def _next_step(self) -> None:
        self.own.recent = deque((look for look in self._recent if look.reference() is not None), MOST_RECENT)
        looks = sum(len(step.waiting) for step in self.unread)
        if looks > MOST_WAITING or not all(step.expects for step in self.unread):
            self._read()
        self.latest = self.own.step = Step(self.latest.number + 1)

    def _around(self, call: Call) -> CallRecord | None:
        parent = call.nearest(self.running)
        return None if parent is None else self.running[parent][0]

    def _given(self, step: Step, record: CallRecord, looks: list[Look], tensor: Tensor) -> TensorInfo:
        """The info of an argument.

        A tensor that no guarded module returned is looked at when needed. On a device that is now, because later the
        tensor may no longer exist.
        """
        look = step.look_at(tensor) or self._look_at_recent(step, tensor)
        if look is None:
            info = describe(tensor)
            if step.found or not can_be_unfinite(tensor):
                return info
            look = step.known[id(tensor)] = Look(tensor, info, None)
            if waits(tensor):
                look.look()
                self._settle(step, look)
        look.takers.append(record)
        looks.append(look)
        return look.info

    def _gave(self, step: Step, record: CallRecord, looks: list[Look], tensor: Tensor) -> TensorInfo:
        """The info of an output. It is looked at unless an inner module returned it and it has not changed since."""
        known = step.look_at(tensor)
        if known is not None and known.looked:
            known.leaves.append(record)
            return known.info
        info = describe(tensor)
        if step.found or not can_be_unfinite(tensor):
            return info
        look = step.known[id(tensor)] = Look(tensor, info, record)
        look.look()
        looks.append(look)
        if self.grads and info.requires_grad and is_grad_enabled() and not tensor.is_leaf:
            step.expects = True
            on_gradient(tensor, partial(self._see_gradient, step, look))
        return info

    def _remember(self, step: Step, record: CallRecord, tensor: Tensor) -> None:
        """Keep a look at the output of an outermost call, to recognize it when the loop passes it to another call."""
        if can_be_unfinite(tensor):
            self._recent.append(step.look_at(tensor) or Look(tensor, describe(tensor), record))

    @property
    def _recent(self) -> deque[Look]:
        """The looks at the outputs of the last outermost calls in this thread."""
        recent: deque[Look] | None = getattr(self.own, "recent", None)
        if recent is None:
            recent = self.own.recent = deque(maxlen=MOST_RECENT)
        return recent

    def _look_at_recent(self, step: Step, tensor: Tensor) -> Look | None:
        """The look at a tensor that an earlier outermost call returned, if it has not changed since."""
        look = next((look for look in self._recent if look.of(tensor)), None)
        if look is not None:
            step.known[id(tensor)] = look
        return look

    def _expect_backward(self, step: Step, call: Call) -> None:
        """If gradients are not guarded and looks wait, be called at the end of the backward pass to read them."""
        if self.grads or not step.waiting or not is_grad_enabled():
            return

        def expect(tensor: Tensor) -> None:
            if tensor.requires_grad and not tensor.is_leaf:
                step.expects = True
                on_gradient(tensor, lambda _: self._await_end(step))

        mirror(call.output, expect)

    # Backward

    def _see_gradient(self, step: Step, look: Look, gradient: Tensor | None) -> None:
        if gradient is None or step.found or not self.open:
            return
        self._await_end(step)
        info = describe(gradient)
        look.info._grad = Slot(info)
        seen = Look(gradient, info, look.record, phase="backward")
        seen.takers, seen.leaves = look.takers, look.leaves
        seen.look()
        self._settle(step, seen)

    def _await_end(self, step: Step) -> None:
        """Be called once at the end of this backward pass, and not for passes that run inside it."""
        if self.passing() is None:
            finish = partial(self._end_of_pass, step)
            self.passing = weakref.ref(finish)  # only the pass holds it, so an error in the pass frees it
            at_end_of_backward(finish)

    def _end_of_pass(self, step: Step) -> None:
        try:
            if self.grads and self.open and not step.found:
                self._look_at_parameters(step)
            self._read()
        finally:
            self.passing = nothing

    def _look_at_parameters(self, step: Step) -> None:
        seen: set[int] = set()
        for path, reference in self.modules.items():
            module = reference()
            for name, parameter in module._parameters.items() if module is not None else ():
                gradient = parameter.grad if parameter is not None and parameter.is_leaf else None
                if type(gradient) is not Tensor or id(gradient) in seen:
                    continue
                seen.add(id(gradient))
                name = f"{path}.{name}" if path else name
                look = Look(gradient, describe(gradient), None, phase="backward", name=name)
                look.look()
                self._settle(step, look)

    # Judging

    def _settle(self, step: Step, look: Look) -> None:
        """Judge a look, now or once its figures are on the CPU."""
        if look.waiting is None:
            self._judge(step, look)
            return
        with self.reading:
            step.waiting.append(look)
            if step not in self.unread:
                self.unread.append(step)
        if current_backward_pass() != -1:
            self._await_end(step)

    def _read(self) -> None:
        """Fetch all figures that wait on a device at once, and judge them in the order of the looks."""
        with self.reading:
            waiting = [(step, look) for step in self.unread for look in step.waiting]
            for step in self.unread:
                step.waiting = []
            self.unread = []
        read(look for _, look in waiting)
        for step, look in waiting:
            self._judge(step, look)

    def _judge(self, step: Step, look: Look) -> None:
        """Report a look that is not finite, if it is the first of its step and not a mask."""
        inputs, look.inputs = look.inputs, ()
        is_argument = look.record is None and look.phase == "forward"
        if step.found or is_argument or not look.looked:
            return
        bad = [] if look.finite else [given for given in inputs if not given.now().finite]
        if look.finite or (look.masks and any(given.has_mask for given in bad)):
            if look.record is not None:
                self.before.append(look)
            return
        step.found = True
        if not any(given.record is not None and given.broken for given in bad):  # else an earlier call was reported
            self._report(step, look, bad)

    def _report(self, step: Step, look: Look, bad_inputs: Sequence[Look]) -> None:
        maker = maker_of(look, bad_inputs, step.given)
        module = self.modules.get(look.name.rpartition(".")[0] if maker is None else maker.path)
        error = failure(
            look,
            maker=maker,
            model=self.model,
            step=step.number,
            bad_inputs=bad_inputs,
            before=[*self.before],
            module=module() if module is not None else None,
        )
        self._save(error)
        try:
            if self.then == "raise":
                raise error
            if self.then == "log":
                logger.error(str(error))
            else:
                self.then(error)
        finally:
            del error  # its traceback holds this frame: the cycle would keep the step's tensors alive

    def _save(self, error: NonFiniteError) -> None:
        """Save the run of the first error, and add where to the message."""
        folder, self.save = self.save, None
        if folder is None or error.run is None:
            return
        try:
            error.run.save(folder)
            line = f"Its run is saved: hookline.load({os.fspath(folder)!r})."
        except StoreError as failed:
            line = f"Its run could not be saved: {failed}"
        error.args = (f"{error}\n{line}",)

    def close(self) -> None:
        """Judge the looks that still wait, and stop. While another exception propagates, an error is only logged."""
        if self.then == "raise" and sys.exception() is not None:
            self.then = "log"
        try:
            self._read()
        finally:
            self.open = False
            self.before.clear()
            self.own = threading.local()
