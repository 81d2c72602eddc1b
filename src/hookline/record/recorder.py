"""The recorder: hooks that turn calls into records, and `recording`, the block that fills a run."""

import itertools
import math
import operator
import sys
import warnings
import weakref
from _thread import get_ident
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import reduce
from threading import Lock
from time import perf_counter
from typing import Any, Literal

from torch import Tensor, is_grad_enabled
from torch.nn import Module

from hookline.engine.attach import attach
from hookline.engine.call import Call, Origin, Shown
from hookline.engine.graph_values import Sees
from hookline.engine.hook import Hook, make_hooks, together
from hookline.engine.methods import MethodCall, attach_methods, has_method, method_path
from hookline.engine.tensor_hooks import on_gradient
from hookline.errors import ArgumentError, SelectionError
from hookline.messages import function_name, outside, wrong_choice
from hookline.model.paths import PathTable
from hookline.model.select import Selection
from hookline.model.sharded import rank_and_world
from hookline.model.tensors import mirror
from hookline.record.keep import Keep, Leaf, describe, keeper, seen, takes_call, version_of
from hookline.record.record import CallRecord, Run, Slot, TensorInfo, infos
from hookline.record.statistics import Pending
from hookline.torch_private import StopRecomputing, current_backward_pass

LAST = float("inf")
PYTORCHS = str(sys.modules[Module.__module__].__file__)  # the file of PyTorch's call
COUNTED = 1024  # calls between two looks at the size of a run
RECORD = 1024  # bytes of a record, about
LARGE, MANY = 100e6, 100_000  # bytes and calls of a run that a user is warned of


def nothing() -> None:
    """Return None, as a dead weak reference does."""


class Recorder:
    """Appends a record of each call of its modules to a run, while it is open.

    - `output`, `inputs`, `gradient`: functions that turn a tensor into a TensorInfo; with `inputs` None the recorder
      refers to the arguments and describes them when they are read;
    - `input_gradients`: whether to record the gradients of the arguments;
    - `sees_inputs`, `sees_outputs`: what these functions need of a tensor in a compiled graph;
    - `last`: how many outermost calls are kept, with the calls inside them; None for all.
    """

    def __init__(
        self,
        run: Run,
        modules: Iterable[tuple[str, Module]],
        *,
        output: Leaf,
        inputs: Leaf | None,
        gradient: Leaf | None,
        input_gradients: bool = False,
        sees_inputs: Sees = "tensors",
        sees_outputs: Sees = "tensors",
        gradient_takes_call: bool = False,
        last: int | None = None,
    ) -> None:
        self.run = run
        self.last = last
        self.starts: deque[int] = deque()  # where in the run each of its outermost calls begins, with `last`
        self.bytes = 0  # of tensors that were kept, as far as they were counted
        self.table = PathTable(modules)
        self.first: tuple[Hook, ...] | None = None
        self.counts: dict[str, itertools.count[int]] = {}
        self.counted = False  # whether `counts` continues from the recorded calls
        self.counting = Lock()
        self.output: Callable[[Tensor, Call], Any] = output if gradient is None else self._with_gradient
        self.bare_output = output
        self.inputs = inputs or describe
        self.by_reference = inputs is None
        self.gradient = gradient
        self.sees_inputs, self.sees_outputs = sees_inputs, sees_outputs
        self.gradient_takes_call = gradient_takes_call
        self.awaiting: weakref.WeakKeyDictionary[Origin, CallRecord] | None = None
        if input_gradients:
            self.awaiting = weakref.WeakKeyDictionary()
        self.began = perf_counter()
        self.numbers = itertools.count()
        self.running: dict[Call, CallRecord] = {}
        self.leaves: list[Callable[[], None]] = []
        self.last_slot: tuple[Callable[[], Any], int | None, Callable[[], Slot | None]] = (nothing, None, nothing)
        self.open = True

    def hooks(self) -> tuple[Hook, ...]:
        """The hooks: one before the module and after every other hook, one at its end even after an error, and one in
        its backward if the gradients of arguments are recorded."""
        begin, end = make_hooks(before=self.begin, always=self.end, order=LAST, compiled="callback")
        begin.sees, end.sees, end.sees_gradients = self.sees_inputs, self.sees_outputs, self.gradient is not None
        self.first = begin, end
        if self.awaiting is not None:
            self.first += make_hooks(backward=self.see_inputs, order=LAST, compiled="leave out")
        return self.first

    def begin(self, call: Call) -> None:
        """Start the record of a call."""
        module, args, kwargs = call.module, call.args, call.kwargs
        names: Any = call.names
        record = CallRecord()
        if names.first is self.first:
            record.path, record.index = names.path, call.index
        else:
            record.path, record.index = self.place_of(call)
        record.type = type(module).__name__
        record.training = module.training
        record.thread = get_ident()
        inputs = self.inputs
        if self.by_reference:
            record._given = args, kwargs, inputs
        else:
            record.args = tuple(
                [inputs(value, call) if type(value) is Tensor else mirror(value, inputs, call) for value in args]
            )
            record.kwargs = {name: mirror(value, inputs, call) for name, value in kwargs.items()} if kwargs else {}
        record.output = record.error = None  # type: ignore[assignment]  # until it returns
        record.seconds = 0.0
        if current_backward_pass() != -1:
            record.recompute = True

        running = self.running
        above = call.nearest(running)
        record.parent = None if above is None else running[above]
        running[call] = record
        if self.awaiting is not None:
            self.awaiting[call.origin()] = record
        if above is None and self.last is not None and not record.recompute:
            self._forget()
        record.number = number = next(self.numbers)
        self.run.calls.append(record)
        if number and not number % COUNTED:
            self._warn_if_large(number)
        record.began = perf_counter() - self.began

    def _forget(self) -> None:
        """Begin an outermost call: drop those before the last ones, unless another thread is inside one."""
        calls = self.run.calls
        self.starts.append(len(calls))
        if self.last is None or len(self.starts) <= self.last or len(self.running) > 1:
            return
        while len(self.starts) > self.last:
            self.starts.popleft()
        cut = self.starts[0]
        del calls[:cut]
        self.starts = deque(start - cut for start in self.starts)
        for place, record in enumerate(calls):
            record.number = place
        self.numbers = itertools.count(len(calls))

    def _warn_if_large(self, number: int) -> None:
        """Warn once where the run has grown large."""
        if self.last is not None or self.bytes is math.inf:
            return
        kept = (info._value for record in self.run.calls[-COUNTED:] for info in record.outputs)
        self.bytes += sum(value.nbytes for value in kept if isinstance(value, Tensor))
        size = self.bytes + number * RECORD
        if size > LARGE or number >= MANY:
            self.bytes = math.inf  # type: ignore[assignment]
            warnings.warn(
                f"this watch has recorded {number:,} calls, about {size / 1e6:,.0f} MB, and grows with each: "
                "watch(..., last=1) keeps the last outermost call alone, hookline.monitor(...) follows a training run "
                "in bounded memory",
                stacklevel=outside(PYTORCHS)[1],
            )

    def place_of(self, call: Call) -> tuple[str, int]:
        """The path and index of a call whose module had hooks before ours, or of a method called by its name.

        An unknown module is a replica of a known one, as in DataParallel.
        """
        if not self.counted:
            with self.counting:
                if not self.counted:
                    recorded = Counter(record.path for record in self.run.calls)
                    self.counts = {path: itertools.count(number) for path, number in recorded.items()}
                    self.counted = True
        path = self.table.path_of(call.module, call.path)
        if isinstance(call, MethodCall) and call.module in self.table:
            path = method_path(path, call.method)
        return path, next(self.counts.setdefault(path, itertools.count()))

    def end(self, call: Call) -> None:
        """Finish the record of a call: its output or error, and its duration."""
        now = perf_counter()
        record = self.running.pop(call, None)
        if record is None:  # an earlier hook ended the call before it was recorded
            if self.first is not None:  # the engine has counted it
                self.first, self.counted = None, False
            return
        record.seconds = now - self.began - record.began
        if call.error is None:
            output = call.output
            record.output = self.output(output, call) if type(output) is Tensor else mirror(output, self.output, call)
        elif not isinstance(call.error, StopRecomputing):  # a checkpoint ends its recomputation by raising this
            record.error = f"{type(call.error).__name__}: {call.error}"

    def see_inputs(self, call: Call) -> None:
        """Record the gradients of a call's arguments."""
        record = self.awaiting.get(call.origin()) if self.awaiting is not None else None
        if record is None or self.gradient is None:
            return
        for taken, gradients in zip((*record.args, record.kwargs), (*call.grad_input, call.grad_kwargs), strict=True):
            if type(taken) is TensorInfo:
                if gradients is not None:
                    taken._grad = Slot(self.gradient(gradients, call))
                continue
            for keys, info in infos(taken) if taken else ():
                gradient = reduce(operator.getitem, keys, gradients)
                if gradient is not None:
                    info._grad = Slot(self.gradient(gradient, call))

    def close(self) -> None:
        """Stop recording, and drop the run: hooks on tensors still refer to this recorder."""
        self.open = False
        for undo in self.leaves:
            undo()
        self.run = Run(model=self.run.model, modules={})  # for a call that still runs in another thread
        self.running = {}
        self.table, self.first = PathTable(()), None
        self.awaiting = None

    def _with_gradient(self, tensor: Tensor, call: Call) -> TensorInfo:
        info = self.bare_output(tensor, call)
        if info.requires_grad and is_grad_enabled():
            info._grad = self._slot_for(tensor, call)
        return info

    def _slot_for(self, tensor: Tensor, call: Call) -> Slot:
        """The slot for the gradient of a tensor. A container that returns the output of its last child shares its
        slot."""
        version = version_of(tensor)
        last, last_version, last_slot = self.last_slot
        slot = last_slot()
        if slot is not None and last() is tensor and last_version == version and not tensor.is_leaf:
            return slot

        slot = Slot()
        place = weakref.ref(slot)
        shown = call._shown
        origin = call.origin() if self.gradient_takes_call or shown is not None else None

        def see(gradient: Tensor | None, shown: Shown | None = None) -> None:
            slot = place()
            if slot is not None and gradient is not None and self.open and self.gradient is not None:
                slot.info = self.gradient(gradient, None if origin is None else origin.call(shown))

        undo = on_gradient(tensor, see) if shown is None else shown.on_gradient(tensor, see)
        if undo is not None:
            self.leaves.append(undo)  # the hook of a leaf, which outlives the graph
        self.last_slot = weakref.ref(tensor), version, place
        return slot


def recording(
    selection: Selection,
    *,
    keep: Keep = "stats",
    inputs: Keep | None = None,
    grads: bool | Literal["input"] = False,
    methods: Sequence[str] = (),
    last: int | None = None,
) -> AbstractContextManager[Run]:
    """A `with` block that records every call of the selected modules, with the arguments of `hookline.watch`."""
    pending = Pending()
    output = keeper(keep, pending)
    if grads not in (True, False, "input"):
        raise ArgumentError(wrong_choice("grads", grads, ["True", "False", "'input'"]))
    given = (
        None
        if inputs is None and keep == "tensor" and grads != "input"
        else keeper(inputs or "shape", pending, name="inputs")
    )
    if last is not None and (type(last) is not int or last < 1):
        raise ArgumentError(f"last must be a whole number from 1, how many outermost calls are kept, not {last!r}")
    names = [methods] if isinstance(methods, str) else [*methods]
    settings = {"keep": _name(keep), "inputs": _name(inputs or "shape"), "grads": grads}
    rank, world_size = rank_and_world()
    run = Run(
        model=type(selection.model).__name__,
        modules=_modules(selection, names),
        aliases=selection.aliases,
        settings={**settings, "methods": names} if names else settings,
        rank=rank,
        world_size=world_size,
    )
    recorder = Recorder(
        run,
        selection,
        output=output,
        inputs=given,
        gradient=output if grads else None,
        input_gradients=grads == "input",
        sees_inputs=seen(inputs or "shape"),
        sees_outputs=seen(keep),
        gradient_takes_call=takes_call(keep),
        last=last,
    )
    return _watching(selection, recorder, recorder.hooks(), names)


def _modules(selection: Selection, methods: Sequence[str]) -> dict[str, str]:
    """The class of each module by path, and of each of its watched methods."""
    found: dict[str, str] = {}
    missing = dict.fromkeys(methods)
    for path, module in selection:
        found[path] = type(module).__name__
        for name in methods:
            if has_method(module, name):
                found[method_path(path, name)] = found[path]
                missing.pop(name, None)
    if missing:
        name = next(iter(missing))
        raise SelectionError(f"none of the {len(selection)} selected modules has a method {name!r}")
    return found


@contextmanager
def _watching(
    selection: Selection, recorder: Recorder, hooks: tuple[Hook, ...], methods: Sequence[str]
) -> Iterator[Run]:
    run = recorder.run
    handle = attach(selection, hooks)
    if methods:
        try:
            handle = together(handle, attach_methods(selection, methods, hooks))
        except BaseException:
            handle.remove()
            raise
    del selection  # it would keep modules alive that are deleted from the model meanwhile
    try:
        yield run
    finally:
        handle.remove()
        if run.rank is None:  # torch.distributed may have been initialized meanwhile
            run.rank, run.world_size = rank_and_world()
        recorder.close()


def _name(keep: Any) -> str:
    """The name of a `keep` in the settings. A function with the name of one of the words gets "()" after it."""
    if isinstance(keep, str):
        return keep
    name = function_name(keep)
    return f"{name}()" if name in ("shape", "stats", "histogram", "tensor", "copy") else name
