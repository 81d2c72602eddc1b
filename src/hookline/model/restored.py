"""A block in which a model may run, and which restores the model and the random generators at its end."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from hookline.model.offload import held_elsewhere, read_elsewhere
from hookline.model.paths import walk
from hookline.model.tensors import parts_of_wrapped, tensors
from hookline.model.unregistered import unregistered


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor that a forward may change in place.

    - `path`: the path of its module;
    - `holder`, `name`: the dict that holds it, and its key there;
    - `tensor`: the tensor itself;
    - `copies`: copies of the tensors that hold its data, which for a plain tensor is one.
    """

    path: str
    holder: Any
    name: str
    tensor: Tensor
    copies: tuple[Tensor, ...]

    @property
    def now(self) -> Tensor | None:
        """The tensor in its place now. A scripted module returns a new one each time."""
        return self.holder.get(self.name) if isinstance(self.holder, dict) else self.tensor

    @property
    def changed(self) -> bool:
        """Whether it was replaced or its elements changed. The version does not show every change."""
        return self.now is not self.tensor or any(True for _ in self.changes())

    def changes(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The parts whose elements changed, each with its copy. A part without data never changes."""
        for part, copy in zip(parts_of_wrapped(self.tensor), self.copies, strict=True):
            if not copy.is_meta and not torch.equal(part, copy):
                yield part, copy


@contextmanager
def restored(model: Module, inputs: Any) -> Iterator[list[Held]]:
    """A block that restores buffers, gradients and the state of random generators at its end.

    Inside it weights and inputs start without gradients. Yields the tensors that a forward may change.

    >>> model, x = torch.nn.BatchNorm1d(1), torch.ones(4, 1)
    >>> with restored(model, x):
    ...     _ = model(x)
    >>> model.running_mean
    tensor([0.])
    """
    hidden = [tensor for each in unregistered(model) for tensor in each.parameters]
    leaves = [*model.parameters(), *hidden, *(tensor for _, tensor in tensors(inputs) if tensor.is_leaf)]
    gradients = [(leaf, leaf.grad) for leaf in leaves if leaf.requires_grad]
    changing = [*_changed_by_a_forward(model)]
    python, numpy = random.getstate(), sys.modules.get("numpy")
    numbers = numpy.random.get_state() if numpy is not None else None
    devices = sorted({leaf.device.index or 0 for leaf in leaves if leaf.device.type == "cuda"})
    for leaf, _ in gradients:
        leaf.grad = None
    try:
        with torch.random.fork_rng(devices=devices):
            yield changing
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(numbers)
        for leaf, gradient in gradients:
            leaf.grad = gradient
        for held in changing:
            if held.now is not held.tensor:
                held.holder[held.name] = held.tensor
            _put_back(held)


def _changed_by_a_forward(model: Module) -> Iterator[Held]:
    """The tensors that a forward may change in place: buffers, and weights of embeddings with `max_norm`."""
    elsewhere = held_elsewhere(model)
    for path, module in walk(model):
        held: list[tuple[Any, str, Tensor]] = [(module._buffers, *each) for each in module.named_buffers(recurse=False)]
        if getattr(module, "max_norm", None) is not None:
            held += [(module._parameters, *each) for each in module.named_parameters(recurse=False)]
        for holder, name, tensor in held:
            stored = read_elsewhere(elsewhere, module, name) if elsewhere and not is_lazy(tensor) else None
            if stored is not None:  # accelerate loads it for a call, and replaces it by an empty one afterwards
                if stored is read_elsewhere(elsewhere, module, name):  # read from disk it is a new tensor each time
                    yield Held(path, None, name, stored, copies_of(stored))
            elif not is_lazy(tensor):
                yield Held(path, holder, name, tensor, copies_of(tensor))


def copies_of(tensor: Tensor) -> tuple[Tensor, ...]:
    """Copies of the parts of a tensor, since a wrapper class may not support copying."""
    return tuple(part.detach().clone() for part in parts_of_wrapped(tensor))


def _put_back(held: Held) -> None:
    with torch.no_grad():
        for part, copy in held.changes():
            part.copy_(copy)


def random_states(value: Any) -> tuple[Any, ...]:
    """The states of the generators of Python, numpy and torch, including those of the devices of a value's tensors."""
    devices = {tensor.device for _, tensor in tensors(value) if tensor.device.type == "cuda"}
    numpy = sys.modules.get("numpy")
    numbers = numpy.random.get_state() if numpy is not None else None
    return random.getstate(), numbers, torch.get_rng_state(), [(d, torch.cuda.get_rng_state(d)) for d in devices]


def set_random_states(states: tuple[Any, ...]) -> None:
    """Restore the generators to these states."""
    python, numbers, cpu, others = states
    random.setstate(python)
    if numbers is not None:
        sys.modules["numpy"].random.set_state(numbers)
    torch.set_rng_state(cpu)
    for device, state in others:
        torch.cuda.set_rng_state(state, device)
