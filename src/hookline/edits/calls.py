"""Which calls are edited: the nth of a module, those of a generation step, or those that a predicate picks."""

import operator
import weakref
from collections.abc import Callable, Collection
from typing import Any, SupportsIndex, TypeAlias
from weakref import WeakKeyDictionary

from torch.nn import Module

from hookline.edits.generation import Steps, generation_step
from hookline.edits.segments import segment
from hookline.engine.call import Call, Origin
from hookline.torch_private import current_backward_pass

When: TypeAlias = int | slice | Collection[int] | Callable[[Call], bool]
"""Which calls to edit: a number, a slice, a collection of numbers, or a predicate of the Call."""


def covers(wanted: Any, number: int) -> bool:
    """Whether a number is among the wanted ones.

    >>> covers(2, 2), covers(slice(1, None), 0), covers([1, 3], 3), covers(lambda number: number > 4, 3)
    (True, False, True, False)
    """
    if callable(wanted):
        return bool(wanted(number))
    if isinstance(wanted, SupportsIndex):
        return number == operator.index(wanted)
    if isinstance(wanted, slice):
        return number in range(*wanted.indices(number + 1))
    return number in wanted


class Counted:
    """Decides which calls of each module are edited, counted from when the edit was added.

    Calls that activation checkpointing repeats are not counted. They are edited if the original call was.
    """

    def __init__(self, when: Any, model: Module) -> None:
        self.model = model
        self.when: Any = when.steps if isinstance(when, generation_step) else when
        self.steps = Steps() if isinstance(when, generation_step) else None
        self.counts: dict[int, int] = {}
        self.chosen: WeakKeyDictionary[Origin, int] = WeakKeyDictionary()
        self.segments: dict[int, Repeats] = {}

    def begin(self, call: Call) -> bool:
        """Decide about a call; returns whether it is edited."""
        running = segment()
        repeats = None if running is None else self._repeats(running)
        if call.recompute and repeats is not None:
            decided = repeats.next(id(call.module))
        else:
            decided = self._decide(call)
            if repeats is not None:
                repeats.calls.setdefault(id(call.module), []).append(decided)
        if decided is not None:
            self.chosen[call.origin()] = decided
        return decided is not None

    def _decide(self, call: Call) -> int | None:
        """The number of a new call if it is edited, else None."""
        number = self.counts.get(id(call.module), 0)
        self.counts[id(call.module)] = number + 1
        if self.when is None:
            wanted = True
        elif self.steps is not None:
            wanted = covers(self.when, self.steps.of(call, self.model))
        elif callable(self.when):
            wanted = bool(self.when(call))
        else:
            wanted = covers(self.when, number)
        return number if wanted else None

    def _repeats(self, running: Any) -> "Repeats":
        """The decisions about a checkpointed segment, kept as long as PyTorch keeps the segment."""
        key = id(running)
        if key not in self.segments:
            segments = self.segments
            self.segments[key] = Repeats(weakref.ref(running, lambda _: segments.pop(key, None)))
        return self.segments[key]


class Repeats:
    """The decisions about each module's calls in one checkpointed segment, and which of the calls each backward pass
    repeats next."""

    __slots__ = ("calls", "places", "segment")

    def __init__(self, segment: Any) -> None:
        self.segment = segment  # a weak reference whose callback drops this when the segment is gone
        self.calls: dict[int, list[int | None]] = {}
        self.places: dict[tuple[int, int], int] = {}

    def next(self, module: int) -> int | None:
        """The decision about the call that is repeated now."""
        key = current_backward_pass(), module
        place = self.places[key] = self.places.get(key, -1) + 1
        calls = self.calls.get(module, [None])
        return calls[place % len(calls)]
