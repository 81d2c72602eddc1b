"""Which generation step a call of the model belongs to: read from its cache, its positions or its tokens."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from hookline.engine.call import Call
from hookline.errors import EditError
from hookline.model.keypath import named

TOKENS = ("decoder_input_ids", "input_ids", "decoder_inputs_embeds", "inputs_embeds", "tokens", "idx", 0)
CACHES = (
    *("cache", "caches", "cache_params", "kv_cache", "past_key_values", "past_key_value", "past", "layer_past"),
    *("mems", "state", "states", "past_states", "past_buckets_states", "inference_params"),
)
POSITIONS = ("cache_position", "input_pos", "start_pos", "position_ids", "positions")
LENGTHS = ("get_seq_length", "seqlen_offset")
STATES = ("has_previous_state", "conv_states", "ssm_states", "recurrent_states", "rnn_state")


@dataclass(frozen=True, slots=True)
class generation_step:
    """The nth step of each generation, for `edit(when=...)`; step 0 is the call that reads the prompt.

    `steps` is a number, a slice, a collection of numbers, or a function of the number that returns whether to edit.

    A call of the model continues a generation if it receives a cache that is not empty, positions beyond its own
    tokens, or, without these, the tokens of the call before and one more. A cache is recognized in any argument, by its
    attributes and contents (`get_seq_length`, convolution or recurrent states, pairs of key and value tensors) or by
    the name of the argument. A prompt that is read in chunks is step 0. Modules that run before the model is called,
    such as an encoder, are in step 0. Where none of these shows which step a call is, the call raises EditError.

    >>> import torch, hookline
    >>> class Model(torch.nn.Module):
    ...     def forward(self, tokens):
    ...         return tokens.float()
    >>> model = Model()
    >>> late = hookline.edits.generation_step(lambda step: step >= 1)
    >>> with hookline.edit(model, "", output=hookline.edits.zero(), when=late):
    ...     model(torch.tensor([[1, 2]])).tolist(), model(torch.tensor([[1, 2, 3]])).tolist()
    ([[1.0, 2.0]], [[0.0, 0.0, 0.0]])
    """

    steps: int | slice | Collection[int] | Callable[[int], Any]


class Steps:
    """Counts the steps of a generation from the arguments of the model's calls."""

    __slots__ = ("last", "now", "read")

    def __init__(self) -> None:
        self.now = 0
        self.read = 0  # tokens read since the generation began
        self.last: Tensor | None = None  # the tokens of the last call without a cache

    def see(self, call: Call) -> None:
        """Count a call of the model."""
        if call.recompute:
            return
        given = named(call.args, call.kwargs)
        tokens = next((given[name] for name in TOKENS if isinstance(given.get(name), Tensor)), None)
        cache = next((value for name, value in given.items() if is_cache(name, value)), None)
        if tokens is None and cache is None:
            raise EditError("generation_step cannot tell which step this call is: it has neither tokens nor a cache")
        count = tokens.shape[1] if tokens is not None and tokens.dim() > 1 else 1
        goes_on = self._goes_on(given, tokens, cache, count)
        if goes_on and self._is_chunk_of_prompt(cache, count):
            self.read += count
            return
        self.now = self.now + 1 if goes_on else 0
        self.read = self.read + count if goes_on else count

    def _goes_on(self, given: Mapping[Any, Any], tokens: Tensor | None, cache: Any, count: int) -> bool:
        """Whether a call continues the generation of the call before it."""
        last, self.last = self.last, None
        filled = None if cache is None else holds_something(cache)
        if filled is not None:
            return filled
        beyond = are_beyond(next((given[name] for name in POSITIONS if given.get(name) is not None), None), count)
        if beyond:
            return True
        if tokens is None or cache is not None:
            if beyond is not None:
                return False
            raise EditError(
                f"generation_step cannot tell which step this call is: its cache, a {type(cache).__name__}, does not "
                "show whether it is empty; pass when=function, which receives the Call"
            )
        self.last = tokens.detach().clone()
        if last is not None and is_one_more(tokens, last):
            return True
        sure = beyond is False or given.get("use_cache") is False
        if count == 1 and last is not None and self.now == 0 and not sure:
            raise EditError(
                "generation_step cannot tell which step this call is: it has one token and no known cache, so it "
                "begins a generation, or continues one whose cache is inside the model; pass when=function, which "
                "receives the Call"
            )
        return False

    def _is_chunk_of_prompt(self, cache: Any, count: int) -> bool:
        """Whether a call that continues reads another chunk of the prompt."""
        if count == 1 or cache is None:
            return False
        length = length_of(cache)
        if self.now == 0 and (length is None or length == self.read):
            return True
        raise EditError(
            f"generation_step cannot tell which step this call is: it has {count} tokens and a cache that is not "
            "empty, so it begins another turn or checks several tokens at once; pass when=function, which receives "
            "the Call"
        )

    def of(self, call: Call, model: Module) -> int:
        """The step that a call belongs to; a call outside the model's own, such as an encoder's, is in step 0."""
        return self.now if any(each.module is model for each in (call, *call.around())) else 0


def is_one_more(tokens: Tensor, last: Tensor) -> bool:
    """Whether these are the tokens of the call before plus one more: all of them, or the last ones where the model
    reads a window. Beams may have been reordered.

    >>> is_one_more(torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2]]))
    True
    >>> is_one_more(torch.tensor([[2, 3]]), torch.tensor([[1, 2]]))
    True
    """
    if tokens.dim() < 2 or last.dim() < 2 or len(tokens) != len(last) or tokens.shape[2:] != last.shape[2:]:
        return False
    grown = tokens.shape[1] == last.shape[1] + 1
    if not grown and (tokens.shape[1] != last.shape[1] or tokens.shape[1] == 1):
        return False
    before, kept = tokens[:, :-1], last if grown else last[:, 1:]
    follows = bool((before[:, None] == kept[None]).flatten(2).all(-1).any(1).all())
    if follows and not grown and torch.equal(tokens, last):
        raise EditError(
            "generation_step cannot tell which step this call is: its tokens are all alike, so it repeats the call "
            "before or continues it by one more token; pass when=function, which receives the Call"
        )
    return follows


def are_beyond(positions: Any, count: int) -> bool | None:
    """Whether positions go beyond a call's own tokens; None where there are none."""
    if isinstance(positions, int):
        return positions > 0
    if not isinstance(positions, Tensor) or positions.numel() == 0:
        return None
    most = int(positions.max())
    return most > 0 if positions.numel() == 1 and count > 1 else most >= count


# Caches


def is_cache(name: Any, value: Any) -> bool:
    """Whether an argument is a cache, by its value or its name."""
    if value is None or isinstance(value, str | bool | int | float | Tensor):
        return name in CACHES and isinstance(value, Tensor)
    return name in CACHES or any(hasattr(value, each) for each in LENGTHS + STATES) or is_keys_and_values(value)


def is_keys_and_values(value: Any) -> bool:
    """Whether a value is a tuple or a list of layers that each hold a key and a value tensor of four dimensions.

    >>> layer = torch.zeros(1, 2, 3, 4)
    >>> is_keys_and_values([(layer, layer)]), is_keys_and_values([layer])
    (True, False)
    """
    if not isinstance(value, tuple | list) or not value:
        return False
    return all(
        isinstance(layer, tuple | list)
        and len(layer) >= 2
        and all(isinstance(part, Tensor) and part.dim() == 4 for part in layer[:2])
        for layer in value
    )


def length_of(cache: Any) -> int | None:
    """How many tokens a cache holds; None where it does not say, as with recurrent states alone."""
    for name in LENGTHS:
        with suppress(AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError):
            length = getattr(cache, name)
            return int(length() if callable(length) else length)
    if is_keys_and_values(cache):
        return int(cache[0][0].shape[-2])
    return None


def holds_something(cache: Any) -> bool | None:
    """Whether a cache is not empty; None where that cannot be seen.

    An object without a length and without a state flag is searched: it is not empty if a tensor in it has an element
    other than zero.
    """
    length = length_of(cache)
    if length is not None:
        return length > 0
    with suppress(AttributeError, TypeError, ValueError):
        previous = cache.has_previous_state
        return bool(previous() if callable(previous) else previous)
    found = [*tensors_in(cache)]
    if not found:
        return False if isinstance(cache, tuple | list | Mapping) or vars_of(cache) else None
    return any(bool(tensor.any()) for tensor in found)


def tensors_in(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """The tensors that a cache holds, in its attributes, lists and dicts, a few levels deep."""
    if isinstance(value, Tensor):
        yield value
    elif depth < 5:
        parts: Any = value.values() if isinstance(value, Mapping) else value
        parts = parts if isinstance(value, Mapping | tuple | list) else vars_of(value).values()
        for part in parts:
            yield from tensors_in(part, depth + 1)


def vars_of(value: Any) -> dict[str, Any]:
    """The attributes of an object, in its `__dict__` and its slots."""
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if name != "__weakref__"]
    return getattr(value, "__dict__", {}) | {name: getattr(value, name) for name in slots if hasattr(value, name)}
