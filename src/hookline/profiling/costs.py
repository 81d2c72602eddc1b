"""Count what a step of a model costs besides time: FLOPs, bytes saved for backward, bytes moved."""

import itertools
import math
from _thread import get_ident
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import Module
from torch.nn.parameter import is_lazy

from hookline.engine.attach import attach
from hookline.engine.call import Call, Origin
from hookline.engine.hook import make_hooks
from hookline.errors import HooklineError
from hookline.messages import few
from hookline.model.select import Selection
from hookline.model.tensors import memory_of, parts_of_wrapped, tensors
from hookline.profiling.flops import counting
from hookline.profiling.timeline import Span, Timeline


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of the calls of one step.

    - `flops`: FLOPs;
    - `unknown`: the number of operations without a formula for FLOPs;
    - `kept`: bytes saved for backward;
    - `moved`: bytes of inputs and outputs;
    - `uncounted`: why FLOPs are unknown (NaN) or incomplete, "" if neither.
    """

    flops: list[Span]
    unknown: list[Span]
    kept: list[Span]
    moved: list[int]
    uncounted: str = ""


def costs_of(selection: Selection, step: Callable[..., Any], *, backward: bool) -> Costs:
    """Run a step and count what each call costs.

    The step runs again without counting FLOPs if it fails with that, or has calls in other threads. It calls `mark`
    before, between and after its two passes.
    """
    try:
        with counting() as counter:
            found = _costs_of(selection, step, counter.flops, counter.unknown, backward=backward)
        if not any(span.thread != get_ident() for span in found.flops if not span.recompute):
            return replace(found, uncounted=without_formula(found.unknown, counter.unknown))
        reason = "it does not see other threads, in which the model calls some of its modules"
    except HooklineError:
        raise
    except Exception as error:  # an error of the model itself is raised again by the second run
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    return replace(_costs_of(selection, step, lambda: math.nan, [], backward=backward), uncounted=reason)


def without_formula(spans: Sequence[Span], unknown: Sequence[str]) -> str:
    """The operations without a formula for FLOPs and their modules, as text; "" if all have one."""
    if not unknown:
        return ""
    operations = [f"{name} x{count}" if count > 1 else name for name, count in Counter(unknown).items()]
    places = [span.path or "the model" for span in spans if span.forward or span.backward]
    where = f", in {few([*dict.fromkeys(places)])}" if places else ""
    return f"no formula for {', '.join(operations)}{where}"


def _costs_of(
    selection: Selection,
    step: Callable[..., Any],
    flops: Callable[[], float],
    unknown: Sequence[str],
    *,
    backward: bool,
) -> Costs:
    kept = Kept(selection.model)
    flops_line = Timeline(flops, backward=backward)
    unknown_line = Timeline(lambda: len(unknown), backward=backward)
    kept_line = Timeline(lambda: len(kept.entries), backward=False, resolve=kept.bytes_of)
    moved: dict[Origin, int] = {}

    def weigh(call: Call) -> None:
        moved[call.origin()] = size_of(call.args) + size_of(call.kwargs) + size_of(call.output)

    weighing = attach(selection, make_hooks(always=weigh, compiled="leave out"))
    lines = flops_line.reading(selection), unknown_line.reading(selection), kept_line.reading(selection)
    with weighing, kept.counting(), lines[0], lines[1], lines[2]:
        step(mark=kept.mark)
    sizes = [moved.get(origin, 0) for origin in flops_line.calls]
    return Costs(flops_line.spans(), unknown_line.spans(), kept_line.spans(), sizes)


class Kept:
    """Counts the bytes that autograd saves for backward at the end of the forward.

    Each storage counts once. Parameters and buffers do not count, nor tensors that were freed before the end.
    """

    def __init__(self, model: Module) -> None:
        held = [tensor for tensor in (*model.parameters(), *model.buffers()) if not is_lazy(tensor)]
        self.own = {memory for tensor in held if (memory := memory_of(tensor))}
        self.latest: dict[int, StorageWeakRef] = {}
        self.entries: list[tuple[StorageWeakRef, int]] = []
        self.sums: list[int] | None = None
        self.marks = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """A block in which it counts."""
        with saved_tensors_hooks(self._keep, lambda tensor: tensor):
            yield

    def _keep(self, tensor: Tensor) -> Tensor:
        for part in parts_of_wrapped(tensor):
            self._count(part)
        return tensor.detach()

    def _count(self, tensor: Tensor) -> None:
        memory = memory_of(tensor)
        known = self.latest.get(memory) if memory is not None else None
        if memory is None or memory in self.own or (known is not None and not gone(known)):
            return
        storage = tensor.untyped_storage()
        self.latest[memory] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        self.entries.append((self.latest[memory], storage.nbytes()))

    def mark(self) -> None:
        """Mark the start of the step, the end of its forward, at which the saved bytes are added up, and the end of its
        backward."""
        self.marks += 1
        if self.marks == 2:
            alive = (0 if gone(reference) else size for reference, size in self.entries)
            self.sums = [*itertools.accumulate(alive, initial=0)]

    def bytes_of(self, counts: list[int]) -> list[float]:
        """The bytes of these numbers of entries. Tensors saved during a backward pass do not count."""
        sums = self.sums or [0]
        return [sums[min(count, len(sums) - 1)] for count in counts]


def gone(reference: StorageWeakRef) -> bool:
    """Whether a storage has been freed."""
    return bool(reference.expired())  # type: ignore[no-untyped-call]


def size_of(value: Any) -> int:
    """The bytes of the tensors in a value, each once."""
    found = {id(tensor): tensor for _, tensor in tensors(value)}
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())
