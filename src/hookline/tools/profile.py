"""profile: measure what every module costs, forward and backward: time, FLOPs, memory."""

import gc
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from hookline.engine.compiled import uncompiled
from hookline.errors import ArgumentError, RecordError
from hookline.model.copies import copied_arguments
from hookline.model.fake import fake_copies
from hookline.model.loss import default_loss
from hookline.model.offload import execution_devices, without_weights
from hookline.model.restored import random_states, restored, set_random_states
from hookline.model.select import Selection, Where, refuse_path_as_input, select
from hookline.model.sharded import is_distributed
from hookline.model.tensors import parts_of_wrapped, tensors
from hookline.profiling.clock import Clock, Off, Times, cost_of_reading, times_of
from hookline.profiling.costs import Costs, costs_of
from hookline.profiling.profiled import Cost, Profile, median, spread
from hookline.profiling.timeline import Span, Timeline

HOST = ("cpu", "meta")
TIMES = ("forward", "forward_self", "backward", "backward_self")


def profile(
    model: Module,
    *args: Any,
    loss: Callable[[Any], Tensor] | None = None,
    where: Where = "**",
    backward: bool = True,
    repeat: int = 5,
    warmup: int = 1,
    meta: bool = False,
    **kwargs: Any,
) -> Profile:
    """Run the model on these inputs, and measure what every module costs: time, FLOPs, bytes, parameters.

    Returns a `Profile`. A step is a forward and, unless `backward=False`, a backward pass from `loss` of the output (by
    default its `.loss`, else the mean square). The first step counts FLOPs and the bytes saved for backward. After
    `warmup` more steps, `repeat` steps are timed, each next to a plain one without hooks.

    The time of a call is host time; on any other device it is the time of its stream, by events, without waiting for
    the device in between. The cost of profiling an empty module is subtracted from each call; `profile.added` is what
    profiling adds in total.

    Backward times are read at aliases of the arguments, as in `hookline.on(backward=)`. If no argument of a call gets a
    gradient, its backward ends where the next one begins. What autograd does outside all calls (the loss, summing
    gradients of parameters that are used twice) counts for the call that is under way, or for none.

    `meta=True` computes nothing and holds no weights: it counts FLOPs and bytes on a copy of the model without data,
    and times nothing. A model on the meta device is profiled so anyway. FLOPs that cannot be counted are NaN, and
    `profile.uncounted` says why; it also names operations without a formula.

    A model whose weights accelerate loads for each call is profiled as it runs, loading included. Compiled modules run
    uncompiled, and a warning says so: the kernels of a graph belong to no single module.

    The backward pass runs with gradients, also inside `torch.no_grad()` or `torch.inference_mode()`. Each step starts
    from the same random state, on copies of the inputs. Afterwards gradients, buffers and random state are restored. An
    error of the model, in the backward pass too, names the module that raised it.

    Raises SelectionError if `where` (see `select`) picks nothing, ArgumentError for a wrong `repeat` or `warmup` and
    for a path as the only input, which is meant as `where=`, and RecordError for a loss without a gradient.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> found = hookline.profile(model, torch.ones(3, 4))
    >>> found["0"].flops, found["0"].backward_flops, found["0"].parameters, found["0"].parameter_bytes
    (192, 192, 40, 160)
    >>> found.total.flops == 2 * 3 * (4 * 8 + 8 * 2)
    True
    """
    if not (isinstance(repeat, int) and isinstance(warmup, int) and repeat >= 1 and warmup >= 0):
        raise ArgumentError(f"repeat must be 1 or more and warmup 0 or more, not {repeat} and {warmup}")
    select(model, where)  # refuses what is not a module before it is asked for parameters
    refuse_path_as_input("profile", model, args, kwargs)
    inputs = args, kwargs
    states = random_states((inputs, [*model.parameters()]))
    counts_only = meta or any(True for _ in without_weights(model))
    data = fake_copies(model, inputs) if counts_only else nullcontext((model, inputs))
    why = "profiled uncompiled, since the kernels of a graph are no one module's"
    with (
        uncompiled(model, why),
        gradients(wanted=backward),
        restored(model, inputs),
        without_gc(),
        data as (subject, given),
    ):
        selection = select(subject, where)
        run = partial(step, subject, given, loss or default_loss, states, backward=backward)
        counted = costs_of(selection, run, backward=backward)  # first, since an error of the model gets its note here
        timed = Timed(selection, run, device_of(subject, given), backward=backward)
        if not counts_only:
            timed.times(repeat, warmup)
        return timed.profile(counted)


def step(
    model: Module,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    loss: Callable[[Any], Tensor | None],
    states: tuple[Any, ...],
    *,
    backward: bool,
    mark: Callable[[], None] = lambda: None,
) -> None:
    """Run one forward and one backward pass from these random states, on copies of the inputs; call `mark` before,
    between and after the two."""
    gc.collect(0)  # what the last step left in cycles would add to this one's memory
    set_random_states(states)
    args, kwargs = copied_arguments(inputs)
    mark()
    output = model(*args, **kwargs)
    mark()
    if not backward:
        mark()
        return
    scalar = loss(output)
    if scalar is None or not scalar.requires_grad:
        raise RecordError(why_no_gradient(model))
    scalar.backward()  # type: ignore[no-untyped-call]
    mark()
    for parameter in model.parameters():
        parameter.grad = None


def why_no_gradient(model: Module) -> str:
    """What to do about a loss without a gradient."""
    parameters = [*model.parameters()]
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        return "no parameter requires a gradient, so the loss has none; pass backward=False"
    return (
        "the loss has no gradient; pass loss=, a function of the output, or backward=False (where the model itself "
        "turns gradients off, as by torch.no_grad(), there is no backward)"
    )


class Timed:
    """The timed steps of one profile."""

    def __init__(self, selection: Selection, run: Callable[..., None], device: torch.device, *, backward: bool) -> None:
        self.selection, self.run, self.device, self.backward = selection, run, device, backward
        self.clock = Clock(self.device)
        self.lines: list[list[Span]] = []
        self.plain: list[tuple[float, float]] = []
        self.profiled: list[float] = []
        self.peak: int | None = None

    def times(self, repeat: int, warmup: int) -> None:
        """Run some steps to warm up, then the timed ones."""
        for _ in range(warmup):
            self.run()
        for _ in range(repeat):
            self.once()

    def once(self) -> None:
        """Run a plain step, then a profiled one."""
        self.clock.forget_peak()
        self.plain.append(self._stretches())
        self.peak = max(self.peak or 0, self.clock.peak() or 0) or None

        timeline = Timeline(self.clock.read, backward=self.backward, resolve=self.clock.seconds)
        with timeline.reading(self.selection):
            self.profiled.append(sum(self._stretches()))
        self.lines.append(timeline.spans())

    def _stretches(self) -> tuple[float, float]:
        """Run one step; the seconds of its forward and of its backward."""
        readings: list[Any] = []
        self.run(mark=lambda: readings.append(self.clock.read()))
        begin, middle, end = self.clock.seconds(readings)
        return middle - begin, end - middle

    def profile(self, counted: Costs) -> Profile:
        """The Profile of all steps."""
        off = cost_of_reading(backward=self.backward) if self.lines and self.clock.on_host else Off()
        alike = [line for line in self.lines if names(line) == names(counted.flops)]
        if self.lines and not alike:
            raise RecordError("the model makes different calls in each step, so their times cannot be combined")
        longer = [profiled / sum(plain) - 1 for profiled, plain in zip(self.profiled, self.plain, strict=True)]
        forward, backward = zip(*self.plain, strict=True) if self.plain else ((), ())
        return Profile(
            costs(self.selection, counted, [times_of(line, off) for line in alike]),
            steps=self.profiled,
            model=type(self.selection.model).__name__,
            device=str(self.device),
            repeat=len(self.lines),
            backward=self.backward,
            plain=(median(forward), median(backward)),
            added=median(longer),
            taken_off=off.total,
            peak=self.peak,
            uncounted=counted.uncounted,
            spans=alike[-1] if alike else (),
        )


def names(spans: list[Span]) -> list[tuple[str, int, bool]]:
    """The calls of a step: path, index and whether it is a recomputation."""
    first: dict[str, int] = {}
    return [(span.path, span.index - first.setdefault(span.path, span.index), span.recompute) for span in spans]


def costs(selection: Selection, counted: Costs, steps: list[list[Times]]) -> Iterator[Cost]:
    """The Cost of each call: its counts, and its times in the median step, which add up."""
    median_step = middle(steps)
    numbers = {id(span): number for number, span in enumerate(counted.flops)}
    for number, (path, index, recompute) in enumerate(names(counted.flops)):
        flops, kept, unknown = counted.flops[number], counted.kept[number], counted.unknown[number]
        module = selection.modules.get(path)
        (count, size), (own_count, own_size) = [
            (0, 0) if module is None else sizes(module.parameters(recurse=recurse)) for recurse in (True, False)
        ]
        yield Cost(
            path=path,
            index=index,
            type=flops.type,
            parent=None if flops.parent is None else numbers[id(flops.parent)],
            recompute=recompute,
            **seconds_of(number, median_step, steps),
            flops=whole(flops.forward_total),
            flops_self=whole(flops.forward),
            backward_flops=whole(flops.backward_total),
            backward_flops_self=whole(flops.backward),
            kept=int(kept.forward_total),
            kept_self=int(kept.forward),
            uncounted=int(unknown.forward_total + unknown.backward_total),
            uncounted_self=int(unknown.forward + unknown.backward),
            parameters=count,
            parameters_self=own_count,
            parameter_bytes=size,
            parameter_bytes_self=own_size,
            moved=counted.moved[number] + own_size,
        )


def middle(steps: list[list[Times]]) -> list[Times]:
    """The step whose total time is the median, the shorter one of two; empty without steps."""
    by_time = sorted(steps, key=lambda step: sum(times.forward_self + times.backward_self for times in step))
    return by_time[(len(by_time) - 1) // 2] if by_time else []


def seconds_of(number: int, median_step: list[Times], steps: list[list[Times]]) -> dict[str, Any]:
    """One call's times in the median step, and their spread over all steps; NaN if nothing was timed."""
    if not median_step:
        return dict.fromkeys(TIMES, math.nan) | {"forward_spread": 0.0, "backward_spread": 0.0}
    return {name: getattr(median_step[number], name) for name in TIMES} | {
        f"{name}_spread": spread([getattr(step[number], name) for step in steps]) for name in ("forward", "backward")
    }


def whole(count: float) -> float:
    """A count as an int; NaN if it is not known."""
    return count if math.isnan(count) else int(count)


def sizes(parameters: Iterable[Parameter]) -> tuple[int, int]:
    """How many elements parameters hold, and their bytes; for a wrapper class, such as a quantized tensor, the bytes of
    the tensors in it."""
    held = [*parameters]
    return sum(parameter.numel() for parameter in held), sum(map(bytes_of, held))


def bytes_of(parameter: Tensor) -> int:
    """The bytes of a parameter; for a distributed one, of the whole."""
    parts = [parameter] if is_distributed(parameter) else parts_of_wrapped(parameter)
    return sum(part.numel() * part.element_size() for part in parts)


# Where it runs


def device_of(model: Module, inputs: Any) -> torch.device:
    """The first device other than the host among those of a model's parameters, buffers and inputs, and those on which
    accelerate runs its modules; the CPU if there is none."""
    given = (tensor for _, tensor in tensors(inputs))
    devices = (tensor.device for tensor in itertools.chain(model.parameters(), model.buffers(), given))
    known = itertools.chain(devices, execution_devices(model))
    return next((device for device in known if device.type not in HOST), torch.device("cpu"))


@contextmanager
def gradients(*, wanted: bool) -> Iterator[None]:
    """A block with gradients, also inside `torch.no_grad()` and `torch.inference_mode()`, or a block without."""
    with torch.inference_mode(False) if wanted else nullcontext(), torch.set_grad_enabled(wanted):
        yield


@contextmanager
def without_gc() -> Iterator[None]:
    """A block in which the garbage collector does not run."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
