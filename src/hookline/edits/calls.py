"""Which calls an edit is at work in: the nth of a module, a step of a generation, or whatever a predicate says."""

import operator
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, SupportsIndex, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch._C import _current_graph_task_id as current_pass

from hookline.edits.segments import segment
from hookline.engine.call import Call, Origin

When: TypeAlias = int | slice | Collection[int] | Callable[[Call], bool]


@dataclass(frozen=True, slots=True)
class generation_step:
    """For `edit(when=...)`: the nth step of each generation, 0 the call that reads the prompt; a number, a slice or a
    collection of them.

    A call of the model goes on with a generation where it is given a filled cache, or, without a cache, the tokens of
    the call before and one more.
    """

    steps: Any


def covers(wanted: Any, number: int) -> bool:
    """Whether a number is one of those that are wanted.

    >>> covers(2, 2), covers(slice(1, None), 0), covers([1, 3], 3)
    (True, False, True)
    """
    if isinstance(wanted, SupportsIndex):
        return number == operator.index(wanted)
    if isinstance(wanted, slice):
        return number in range(*wanted.indices(number + 1))
    return number in wanted


class Steps:
    """Counts the steps of a generation, by what the model is called with."""

    __slots__ = ("now", "tokens")

    def __init__(self) -> None:
        self.now = 0
        self.tokens: Tensor | None = None

    def see(self, call: Call) -> None:
        """The model is called."""
        if call.recompute:
            return
        tokens = call.kwargs.get("input_ids", call.args[0] if call.args else None)
        cache = call.kwargs.get("past_key_values")
        goes_on = cached(cache) > 0 if cache is not None else self._is_one_more(tokens)
        self.now = self.now + 1 if goes_on else 0
        self.tokens = tokens.detach().clone() if isinstance(tokens, Tensor) and cache is None else None

    def _is_one_more(self, tokens: Any) -> bool:
        before = self.tokens
        if before is None or not isinstance(tokens, Tensor) or tokens.dim() < 2:
            return False
        one_more = tokens.shape[:1] == before.shape[:1] and tokens.shape[1] == before.shape[1] + 1
        return one_more and torch.equal(tokens[:, :-1], before)


def cached(cache: Any) -> int:
    """How many positions a cache of keys and values holds."""
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    try:
        return int(cache[0][0].shape[-2])
    except (IndexError, TypeError, AttributeError, KeyError):
        return 0


class Counted:
    """Which of each module's calls are to be changed, counted from when the edit was put on. The calls that activation
    checkpointing repeats are not counted, and are changed where the call that they repeat was."""

    def __init__(self, when: Any) -> None:
        self.when = when.steps if isinstance(when, generation_step) else when
        self.steps = Steps() if isinstance(when, generation_step) else None
        self.counts: dict[int, int] = {}
        self.chosen: WeakKeyDictionary[Origin, int] = WeakKeyDictionary()
        self.segments: dict[int, Repeats] = {}

    def begin(self, call: Call) -> bool:
        """Decide about a call; whether it is to be changed."""
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
        """The number of a new call where that is to be changed, else None."""
        number = self.counts.get(id(call.module), 0)
        self.counts[id(call.module)] = number + 1
        if self.when is None:
            wanted = True
        elif callable(self.when):
            wanted = bool(self.when(call))
        else:
            wanted = covers(self.when, number if self.steps is None else self.steps.now)
        return number if wanted else None

    def _repeats(self, running: Any) -> "Repeats":
        """What is remembered of a segment, for as long as PyTorch keeps that."""
        key = id(running)
        if key not in self.segments:
            segments = self.segments
            self.segments[key] = Repeats(weakref.ref(running, lambda _: segments.pop(key, None)))
        return self.segments[key]


class Repeats:
    """What was decided about each module's calls in one checkpointed segment, and which of them each backward pass
    repeats next."""

    __slots__ = ("calls", "places", "segment")

    def __init__(self, segment: Any) -> None:
        self.segment = segment  # a weak reference, which forgets this when the segment is gone
        self.calls: dict[int, list[int | None]] = {}
        self.places: dict[tuple[int, int], int] = {}

    def next(self, module: int) -> int | None:
        """What was decided about the call that is repeated now."""
        key = current_pass(), module
        place = self.places[key] = self.places.get(key, -1) + 1
        calls = self.calls.get(module, [None])
        return calls[place % len(calls)]
