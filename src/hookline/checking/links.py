"""Links: which call computed each tensor that another call received, and the gradients on the way back.

A run knows tensors only by their statistics. A check also has the tensors and their autograd graph, so it can follow a
view, a stack or an addition between two modules exactly.
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookline.checking.evidence import Flow, Place, Source
from hookline.checking.tally import largest_of
from hookline.engine.tensor_hooks import on_gradient
from hookline.model.tensors import memory_of
from hookline.record.keep import version_of

Edge: TypeAlias = tuple[Any, int]  # an autograd node, and which of its outputs
MOST_NODES = 2000  # nodes of one walk; what is deeper stays unknown
MOST_RECENT = 64  # outputs whose graph is searched when a later outermost call receives tensors computed from them
MOST_KNOWN = 4096  # tensors that are recognized by identity, before those that no longer exist are dropped

# Operations whose backward only moves, adds or repeats gradients: none turns finite numbers into NaN.
PASSING = frozenset(
    (
        *("View", "UnsafeView", "ReshapeAlias", "Alias", "AsStrided", "Clone", "Copy", "T", "Transpose", "Permute"),
        *("MoveDim", "Movedim", "Unsqueeze", "Squeeze", "Expand", "Repeat", "RepeatInterleave", "Stack", "Cat"),
        *("Split", "SplitWithSizes", "Chunk", "Unbind", "Select", "Slice", "Index", "IndexSelect", "Narrow", "Gather"),
        *("Flip", "Roll", "Diagonal", "Unfold", "Add", "Sub", "Neg", "Sum", "Relu", "Threshold", "ConstantPadNd"),
        *("MaxPool2DWithIndices", "MaxPool3DWithIndices", "NestedViewFromBuffer", "SetData", "UnsafeSplit"),
    )
)

VIEWS = frozenset(("View", "UnsafeView", "ReshapeAlias"))
POOLING = frozenset(("MaxPool2DWithIndices", "AvgPool2D", "AdaptiveAvgPool2D", "Mean", "NativeDropout"))
SAME_UNITS = frozenset(("Add", "Mul", "Clone"))  # operations that keep the units of their first tensor


def operation(node: Any) -> str:
    """The name of an autograd node's operation.

    >>> operation(torch.ones(2, requires_grad=True).view(1, 2).grad_fn)
    'View'
    """
    return str(node.name()).rpartition(":")[2].split("Backward")[0]


@dataclass(slots=True)
class Largest:
    """The largest magnitude in all gradients on one path, as a tensor on their device."""

    value: Tensor | None = None

    def see(self, gradient: Tensor | None) -> None:
        """Take one gradient into account."""
        largest = None if gradient is None else largest_of(gradient)
        if largest is not None:
            self.value = largest if self.value is None else torch.maximum(self.value, largest)

    def number(self) -> float | None:
        """The magnitude as a number; None if no gradient arrived."""
        return None if self.value is None else float(self.value)


@dataclass(slots=True)
class Known:
    """An output of some call: a weak reference to the tensor, its version then, and which output it is."""

    reference: Callable[[], Tensor | None]
    version: int | None
    source: Source


@dataclass(slots=True)
class Open:
    """A path from a tensor of a call back to its sources, before its gradient is read. See `Flow`."""

    place: Place
    sources: tuple[Source, ...]
    passing: tuple[Source, ...]
    operations: tuple[str, ...]
    direct: bool
    largest: Largest | None = None


@dataclass(slots=True)
class User:
    """An autograd node that takes an output of some call: the call whose code it is in, the node, and which input."""

    place: Place
    node: Any
    position: int
    largest: Largest | None = None

    def flow(self, source: Source) -> Open:
        """The path through the node."""
        return Open(self.place, (source,), (), (operation(self.node),), direct=True, largest=self.largest)


@dataclass(slots=True)
class Links:
    """The paths of tensors between calls. It keeps nothing of the graph beyond an outermost call."""

    known: dict[int, Known] = field(default_factory=dict)
    storages: dict[int, Known] = field(default_factory=dict)
    edges: dict[Edge, tuple[Source, ...]] = field(default_factory=dict)
    outputs: set[Edge] = field(default_factory=set)
    users: dict[Source, list[User]] = field(default_factory=dict)
    taken: dict[Place, list[Open]] = field(default_factory=dict)
    used: dict[Source, list[Open]] = field(default_factory=dict)
    rectified: set[Any] = field(default_factory=set)
    moved: set[Source] = field(default_factory=set)
    recent: deque[Known] = field(default_factory=lambda: deque(maxlen=MOST_RECENT))

    def take(self, place: Place, parent: Place | None, tensors: Iterable[Tensor]) -> None:
        """Add the tensors that a call received."""
        if parent is None:
            self._remember_earlier()
        for tensor in tensors:
            way = self._trace(tensor, place, within=parent)
            self.taken.setdefault(place, []).append(way)
            node = tensor.grad_fn
            if node is None or way.direct:
                continue
            self.edges.setdefault((node, tensor.output_nr), way.sources)
            self.moved.update(way.passing)
            if way.sources and not tensor.is_leaf:
                way.largest = Largest()
                on_gradient(tensor, partial(Largest.see, way.largest))

    def give(self, place: Place, tensors: Iterable[Tensor]) -> None:
        """Add the tensors that a call returned. The output of an inner call stays known as that call's."""
        for number, tensor in enumerate(tensors):
            if self.source_of(tensor) is not None:
                continue
            self._trace(tensor, place, within=place)
            source: Source = (*place, number)
            known = Known(weakref.ref(tensor), version_of(tensor), source)
            self.recent.append(known)
            self.known[id(tensor)] = known
            memory = memory_of(tensor)
            if memory is not None:
                self.storages[memory] = known
            if tensor.grad_fn is not None:
                self.edges[tensor.grad_fn, tensor.output_nr] = (source,)
                self.outputs.add((tensor.grad_fn, tensor.output_nr))

    def end(self) -> None:
        """After an outermost call: hook nodes that share a tensor with others, and drop the graph."""
        for source, users in self.users.items():
            several = len({user.place for user in users}) > 1 or source in self.moved
            for user in users if several else ():
                user.largest = Largest()
                user.node.register_hook(partial(_see_input, user.largest, user.position))
            self.used[source] = [user.flow(source) for user in users]
        self.users, self.edges = {}, {}
        self.outputs, self.rectified, self.moved = set(), set(), set()
        if len(self.known) > MOST_KNOWN:
            self.known = {key: each for key, each in self.known.items() if each.reference() is not None}
            self.storages = {key: each for key, each in self.storages.items() if each.reference() is not None}

    def _remember_earlier(self) -> None:
        """Add the graph edges of outputs of earlier outermost calls that still exist."""
        for known in self.recent:
            tensor = known.reference()
            if tensor is not None and tensor.grad_fn is not None and version_of(tensor) == known.version:
                self.edges.setdefault((tensor.grad_fn, tensor.output_nr), (known.source,))

    def rectified_of(self, tensor: Tensor) -> tuple[Source, str, Tensor] | None:
        """For the result of torch.relu or F.relu6, or a view, pooling or masking of it: the output that the function
        was applied to, the name of the function and the values.

        None for other tensors, and the second time for one result.
        """
        node: Any = tensor.grad_fn
        if node is None or self.source_of(tensor) is not None:
            return None
        values = tensor.detach()
        if operation(node) in VIEWS and node.next_functions[0][0] is not None:
            values = values.reshape(tuple(node._saved_self_sym_sizes))
            node = node.next_functions[0][0]
        while node is not None and _keeps_zeros(node):
            node = node.next_functions[0][0]
        name = None if node is None else rectifier(node)
        if name is None or node in self.rectified:
            return None
        self.rectified.add(node)
        edge = node.next_functions[0]
        while edge[0] is not None and edge not in self.edges and operation(edge[0]) in SAME_UNITS:
            edge = edge[0].next_functions[0]
        source = next(iter(self.edges.get(edge, ())), None)
        return None if source is None else (source, name, values)

    def source_of(self, tensor: Tensor) -> Source | None:
        """The output that a tensor is, if it has not changed since; None if no call returned it."""
        known = self.known.get(id(tensor))
        if known is None or known.reference() is not tensor or known.version != version_of(tensor):
            return None
        return known.source

    def _trace(self, tensor: Tensor, place: Place, *, within: Place | None) -> Open:
        """The path back from a tensor to outputs of calls; its nodes are in the code of the call `within`."""
        source = self.source_of(tensor)
        if source is not None:
            return Open(place, (source,), (source,), (), direct=True)
        if tensor.grad_fn is None:
            same = self._by_storage(tensor)
            return Open(place, same, same, (), direct=False)
        found: dict[Source, bool] = {}
        names: dict[str, None] = {}
        for node, below, passing in self._walk((tensor.grad_fn, tensor.output_nr)):
            for position, edge in enumerate(node.next_functions):
                if edge in self.outputs and within is not None and operation(node) not in PASSING:
                    for reached in self.edges[edge]:
                        self._add_user(reached, User(within, node, position))
            for reached in below:
                found[reached] = found.get(reached, False) or passing
            if not below or operation(node) not in PASSING:
                names[operation(node)] = None
        first = self.edges.get((tensor.grad_fn, tensor.output_nr), ())
        found |= dict.fromkeys(first, True)
        moved = tuple(each for each, only_moved in found.items() if only_moved)
        if not found:
            found, moved = dict.fromkeys(self._by_storage(tensor), True), self._by_storage(tensor)
        return Open(place, tuple(found), moved, tuple(names), direct=False)

    def _walk(self, start: Edge) -> Iterator[tuple[Any, tuple[Source, ...], bool]]:
        """Every node between a tensor and the nearest outputs, with the outputs right below it, and whether all
        operations in between only pass gradients on."""
        if start in self.edges:
            return
        seen: set[tuple[Any, bool]] = set()
        left: list[tuple[Any, bool]] = [(start[0], True)]
        while left and len(seen) < MOST_NODES:
            node, passing = left.pop()
            name = operation(node)
            if (node, passing) in seen or name == "AccumulateGrad":
                continue
            seen.add((node, passing))
            passing = passing and name in PASSING
            below: list[Source] = []
            for edge in node.next_functions:
                if edge[0] is None:
                    continue
                if edge in self.edges:
                    below += self.edges[edge]
                else:
                    left.append((edge[0], passing))
            yield node, tuple(below), passing

    def _add_user(self, source: Source, user: User) -> None:
        users = self.users.setdefault(source, [])
        if not any(other.node is user.node and other.position == user.position for other in users):
            users.append(user)

    def _by_storage(self, tensor: Tensor) -> tuple[Source, ...]:
        memory = memory_of(tensor)
        known = None if memory is None else self.storages.get(memory)
        made = None if known is None else known.reference()
        if known is None or made is None or memory_of(made) != memory:
            return ()
        return (known.source,)

    def flows(self) -> tuple[Flow, ...]:
        """Every path, with the gradients that arrived on it."""
        taken = [_flow(way, "input") for ways in self.taken.values() for way in ways if way.sources]
        used = [_flow(way, "operation") for ways in self.used.values() for way in ways]
        return (*taken, *used)


def rectifier(node: Any) -> str | None:
    """The rectifier function of a graph node; None for any other node.

    >>> x = torch.ones(2, requires_grad=True)
    >>> [rectifier(f(x).grad_fn) for f in (torch.relu, torch.nn.functional.relu6, torch.nn.functional.hardtanh)]
    ['torch.relu', 'F.relu6', None]
    """
    kind = operation(node)
    if kind == "Hardtanh" and node._saved_min_val == 0:
        return "F.relu6"
    return "torch.relu" if kind == "Relu" else None


def _keeps_zeros(node: Any) -> bool:
    """Whether an operation keeps zero units at 0 and others mostly not: a pooling, or a product with a tensor without
    gradient, such as the mask of a dropout."""
    name = operation(node)
    return name in POOLING or (name == "Mul" and node.next_functions[1][0] is None)


def _flow(way: Open, kind: Any) -> Flow:
    gradient = None if way.largest is None else way.largest.number()
    hooked = way.largest is not None
    return Flow(way.place, kind, way.sources, way.passing, way.operations, way.direct, hooked, gradient)


def _see_input(largest: Largest, position: int, gradients: tuple[Tensor | None, ...], _: Any) -> None:
    with suppress(Exception):  # a user's backward may return anything, and looking must never end a backward pass
        largest.see(gradients[position])
