"""What a step of a model costs beside time: FLOPs, bytes kept for the backward pass, bytes moved."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import Module
from torch.nn.parameter import is_lazy
from torch.utils.flop_counter import FlopCounterMode

from hookline.engine.attach import attach
from hookline.engine.call import Call, Origin
from hookline.engine.hook import make_hooks
from hookline.model.select import Selection
from hookline.model.tensors import memory_of, tensors
from hookline.record.timeline import Span, Timeline


@dataclass(frozen=True, slots=True)
class Costs:
    """The calls of one step: their FLOPs, the bytes that they kept, the bytes that they took and gave."""

    flops: list[Span]
    kept: list[Span]
    moved: list[int]


def costs_of(selection: Selection, step: Callable[..., Any], *, backward: bool) -> Costs:
    """Run a step, and count what each call costs. The step calls `mark` before, between and after its two passes."""
    counter = FlopCounterMode(display=False)
    kept = Kept(selection.model)
    flops_line = Timeline(counter.get_total_flops, backward=backward)
    kept_line = Timeline(lambda: len(kept.entries), backward=False, resolve=kept.bytes_of)
    moved: dict[Origin, int] = {}

    def weigh(call: Call) -> None:
        moved[call.origin()] = size_of(call.args) + size_of(call.kwargs) + size_of(call.output)

    weighing = attach(selection, make_hooks(always=weigh))
    with weighing, kept.counting(), counter, flops_line.reading(selection), kept_line.reading(selection):
        step(mark=kept.mark)
    return Costs(flops_line.spans(), kept_line.spans(), [moved.get(origin, 0) for origin in flops_line.calls])


class Kept:
    """Counts the bytes that autograd keeps for the backward pass when the forward is over: each memory once, parameters
    and buffers left out, and what was let go in between."""

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
        memory = memory_of(tensor)
        known = self.latest.get(memory) if memory is not None else None
        if memory is not None and memory not in self.own and (known is None or gone(known)):
            storage = tensor.untyped_storage()
            self.latest[memory] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
            self.entries.append((self.latest[memory], storage.nbytes()))
        return tensor.detach()

    def mark(self) -> None:
        """The step begins, or has come to the end of its forward, when what is kept is seen to, or of its backward."""
        self.marks += 1
        if self.marks == 2:
            alive = (0 if gone(reference) else size for reference, size in self.entries)
            self.sums = [*itertools.accumulate(alive, initial=0)]

    def bytes_of(self, counts: list[int]) -> list[float]:
        """For numbers of entries the bytes that these keep; what a backward pass keeps on top is not counted."""
        sums = self.sums or [0]
        return [sums[min(count, len(sums) - 1)] for count in counts]


def gone(reference: StorageWeakRef) -> bool:
    """Whether a memory has been let go."""
    return bool(reference.expired())  # type: ignore[no-untyped-call]


def size_of(value: Any) -> int:
    """The bytes of the tensors in a value, each once."""
    found = {id(tensor): tensor for _, tensor in tensors(value)}
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())
