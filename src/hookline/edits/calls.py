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
from torch.nn import Module

from hookline.edits.segments import segment
from hookline.engine.call import Call, Origin
from hookline.errors import EditError
from hookline.model.pick import named

When: TypeAlias = int | slice | Collection[int] | Callable[[Call], bool]


@dataclass(frozen=True, slots=True)
class generation_step:
    """For `edit(when=...)`: the nth step of each generation, 0 the call that reads the prompt; a number, a slice or a
    collection of them.

    A call of the model goes on with a generation where it is given a cache that holds something, or, without a cache,
    the same prompt and one token more than the call before. What runs before the model's first call, as an encoder
    does, is in step 0.
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

    __slots__ = ("length", "now", "prompt")

    def __init__(self) -> None:
        self.now = 0
        self.length = 0
        self.prompt: Tensor | None = None

    def see(self, call: Call) -> None:
        """The model is called."""
        if call.recompute:
            return
        given = named(call.args, call.kwargs)
        tokens = next((given[name] for name in TOKENS if isinstance(given.get(name), Tensor)), None)
        cache = next((given[name] for name in CACHES if given.get(name) is not None), None)
        if tokens is None and cache is None:
            raise EditError(
                "generation_step cannot tell which step this call is: it is given neither tokens nor a cache"
            )
        if cache is not None and holds_nothing(cache) is not None:
            goes_on = not holds_nothing(cache)
        elif cache is not None:
            goes_on = tokens is not None and tokens.shape[1:2] == (1,)
        else:
            goes_on = tokens is not None and self._is_one_more(tokens)
        self.now = self.now + 1 if goes_on else 0
        if not goes_on and isinstance(tokens, Tensor):
            self.prompt = tokens.detach().clone()
        self.length = tokens.shape[1] if isinstance(tokens, Tensor) and tokens.dim() > 1 else 0

    def _is_one_more(self, tokens: Tensor) -> bool:
        """Whether these are the tokens of the call before and one more: the same prompt, though beams may have changed
        places."""
        prompt = self.prompt
        if prompt is None or tokens.dim() < 2 or tokens.shape[1] != self.length + 1 or len(tokens) != len(prompt):
            return False
        return torch.equal(tokens[:, : prompt.shape[1]], prompt)

    def of(self, call: Call, model: Module) -> int:
        """The step that a call belongs to; what runs before the model is called, as the encoder of a pair, is in the
        first."""
        around: Call | None = call
        while around is not None:
            if around.module is model:
                return self.now
            around = around.parent
        return 0


TOKENS = ("decoder_input_ids", "input_ids", "decoder_inputs_embeds", "inputs_embeds", 0)
CACHES = ("past_key_values", "cache_params")


def holds_nothing(cache: Any) -> bool | None:
    """Whether a cache of keys and values is empty; None where it does not tell."""
    try:
        if hasattr(cache, "get_seq_length"):
            return int(cache.get_seq_length()) == 0
        return int(cache[0][0].shape[-2]) == 0
    except (IndexError, TypeError, AttributeError, KeyError, ValueError):
        return None


class Counted:
    """Which of each module's calls are to be changed, counted from when the edit was put on. The calls that activation
    checkpointing repeats are not counted, and are changed where the call that they repeat was."""

    def __init__(self, when: Any, model: Module) -> None:
        self.model = model
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
            wanted = covers(self.when, number if self.steps is None else self.steps.of(call, self.model))
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
