"""Which calls an edit is at work in: the nth of a module, a step of a generation, or whatever a predicate says."""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hookline.engine.call import Call, Origin

REMEMBERED = 4096  # calls of one module between two backward passes

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
    if isinstance(wanted, int):
        return number == wanted
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
    checkpointing repeats are not counted, and are changed where the call that they repeat was; they come last first."""

    def __init__(self, when: Any) -> None:
        self.when = when.steps if isinstance(when, generation_step) else when
        self.by_step = isinstance(when, generation_step)
        self.steps = Steps()
        self.tallies: dict[int, Tally] = {}
        self.chosen: WeakKeyDictionary[Origin, int] = WeakKeyDictionary()

    def begin(self, call: Call) -> bool:
        """Decide about a call; whether it is to be changed."""
        tally = self.tallies.setdefault(id(call.module), Tally())
        if call.recompute and tally.decided:
            number, wanted = tally.again()
        else:
            number, wanted = tally.next(lambda number: self._wants(call, number))
        if wanted:
            self.chosen[call.origin()] = number
        return wanted

    def _wants(self, call: Call, number: int) -> bool:
        if self.when is None:
            return True
        if callable(self.when):
            return bool(self.when(call))
        return covers(self.when, self.steps.now if self.by_step else number)


class Tally:
    """One module's calls: how many, what was decided about the last of them, and how many were repeated since."""

    __slots__ = ("count", "decided", "repeated")

    def __init__(self) -> None:
        self.count = 0
        self.repeated = 0
        self.decided: deque[bool] = deque(maxlen=REMEMBERED)

    def next(self, wants: Callable[[int], bool]) -> tuple[int, bool]:
        """The number of a new call, and what is decided about it."""
        if self.repeated:
            self.repeated = 0
            self.decided.clear()
        number, wanted = self.count, wants(self.count)
        self.count += 1
        self.decided.append(wanted)
        return number, wanted

    def again(self) -> tuple[int, bool]:
        """The number of the call that is repeated, and what was decided about it."""
        back = self.repeated % len(self.decided)
        self.repeated += 1
        return self.count - 1 - back, self.decided[-1 - back]
