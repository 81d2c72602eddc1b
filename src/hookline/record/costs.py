"""What a step of a model costs beside time: FLOPs, bytes kept for the backward pass, bytes moved."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import Module
from torch.utils.flop_counter import FlopCounterMode

from hookline.engine.attach import attach
from hookline.engine.call import Call, Origin
from hookline.engine.hook import make_hooks
from hookline.model.select import Selection
from hookline.model.tensors import tensors
from hookline.record.timeline import Span, Timeline


@dataclass(frozen=True, slots=True)
class Costs:
    """The calls of one step: their FLOPs, the bytes that they kept, the bytes that they took and gave."""

    flops: list[Span]
    kept: list[Span]
    moved: list[int]


def costs_of(selection: Selection, step: Callable[[], Any], *, backward: bool) -> Costs:
    """Run a step, and count what each call costs."""
    counter = FlopCounterMode(display=False)
    kept = Kept(selection.model)
    flops_line = Timeline(counter.get_total_flops, backward=backward)
    kept_line = Timeline(lambda: kept.bytes, backward=False)
    moved: dict[Origin, int] = {}

    def weigh(call: Call) -> None:
        moved[call.origin()] = size_of(call.args) + size_of(call.kwargs) + size_of(call.output)

    weighing = attach(selection, make_hooks(always=weigh))
    with weighing, kept.counting(), counter, flops_line.reading(selection), kept_line.reading(selection):
        step()
    return Costs(flops_line.spans(), kept_line.spans(), [moved.get(origin, 0) for origin in flops_line.calls])


class Kept:
    """Counts the bytes that autograd keeps for the backward pass: each memory once, parameters and buffers left out."""

    def __init__(self, model: Module) -> None:
        self.bytes = 0
        held = [*model.parameters(), *model.buffers()]
        self.seen = {memory for tensor in held if (memory := memory_of(tensor))}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """A block in which it counts."""
        with saved_tensors_hooks(self._keep, lambda tensor: tensor):
            yield

    def _keep(self, tensor: Tensor) -> Tensor:
        memory = memory_of(tensor)
        if memory is not None and memory not in self.seen:
            self.seen.add(memory)
            self.bytes += size_of_memory(tensor)
        return tensor.detach()


def memory_of(tensor: Tensor) -> int | None:
    """What tells the memory of a tensor from others'; None where it has none of its own."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # a sparse tensor, a wrapper class
        return None


def size_of_memory(tensor: Tensor) -> int:
    """The bytes of a tensor's memory, which may be more than its own."""
    try:
        return int(tensor.untyped_storage().nbytes())
    except (NotImplementedError, RuntimeError):
        return tensor.numel() * tensor.element_size()


def size_of(value: Any) -> int:
    """The bytes of the tensors in a value, each once."""
    found = {id(tensor): tensor for _, tensor in tensors(value)}
    return sum(tensor.numel() * tensor.element_size() for tensor in found.values())
