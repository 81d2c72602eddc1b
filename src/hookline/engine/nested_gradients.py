"""Gradients nested like the values they belong to."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hookline.errors import GradientError
from hookline.model.tensors import Change, Fields, exchange, mirror


class Place:
    """The place of a tensor's gradient in a nested value."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


FIRST = Place(0)
ONE = (FIRST,)  # the arguments of most calls: one tensor
NO_KWARGS: dict[str, Any] = {}


class Places:
    """The tensors in nested values that require a gradient, each with its Place."""

    __slots__ = ("found", "tensors")

    def __init__(self, without: Iterable[Tensor] = ()) -> None:
        self.tensors: list[Tensor] = []
        self.found: dict[int, Place | None] = {id(tensor): None for tensor in without}

    def pattern(self, value: Any) -> Any:
        """The nesting of a value with a Place for each such tensor in it, and None for the others."""
        return mirror(value, self._place)

    def _place(self, tensor: Tensor) -> Place | None:
        if not tensor.requires_grad:
            return None
        key = id(tensor)
        if key not in self.found:
            self.found[key] = Place(len(self.tensors))
            self.tensors.append(tensor)
        return self.found[key]

    def exchange(self, value: Any, others: Sequence[Tensor], changes: list[Change]) -> Any:
        """The value with other tensors in these places; `changes` collects how to undo it."""

        def other(tensor: Tensor) -> Tensor:
            place = self.found.get(id(tensor))
            return tensor if place is None else others[place.index]

        return exchange(value, other, changes)


def fill(pattern: Any, gradients: list[Tensor | None]) -> Any:
    """The nesting with the gradients in their places, and None elsewhere.

    >>> import torch
    >>> x, y = torch.zeros(1, requires_grad=True), torch.zeros(1)
    >>> fill(Places().pattern([x, 3, {"y": y}]), [torch.ones(1)])
    [tensor([1.]), None, {'y': None}]
    """
    if pattern is ONE:
        return (gradients[0],)
    if isinstance(pattern, Place):
        return gradients[pattern.index]
    if pattern is NO_KWARGS:
        return {}
    if isinstance(pattern, Fields):
        return Fields(pattern.type, {name: fill(part, gradients) for name, part in dict.items(pattern)})
    if isinstance(pattern, dict):
        return {key: fill(part, gradients) for key, part in pattern.items()}
    if isinstance(pattern, tuple | list):
        return type(pattern)([fill(part, gradients) for part in pattern])
    return None


def assigned(name: str, pattern: Any, value: Any, filled: Any, gradients: list[Tensor | None]) -> list[Tensor | None]:
    """The gradients by place after a hook, which may have assigned others. `filled` is the nesting that it received.

    None instead of a gradient means zeros. Raises GradientError for a gradient that does not fit.
    """
    if value is filled and (pattern is ONE or pattern is FIRST or (pattern is NO_KWARGS and not filled)):
        return gradients
    new = gradients
    for place, found in _pairs(name, pattern, value):
        old = gradients[place.index]
        if found is old:
            continue
        if old is None:
            raise GradientError(f"{name} was assigned a gradient where none flows; leave None there")
        if found is not None and not fits(found, old):
            raise GradientError(f"{name} was assigned {described(found)} where a gradient of {described(old)} belongs")
        if new is gradients:
            new = [*gradients]
        elif new[place.index] is not old and not same(new[place.index], found):
            raise GradientError(
                f"{name} was assigned two gradients of one tensor that is in two places: assign the same one in both"
            )
        new[place.index] = torch.zeros_like(old) if found is None else found
    return new


def same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two assigned gradients are equal."""
    return one is other or (one is not None and other is not None and torch.equal(one, other))


def fits(gradient: Any, old: Tensor) -> bool:
    """Whether a gradient can replace another."""
    return isinstance(gradient, Tensor) and gradient.shape == old.shape and gradient.dtype == old.dtype


def described(value: Any) -> str:
    """A gradient in an error."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')}{[*value.shape]}"


def _pairs(name: str, pattern: Any, value: Any) -> Any:
    """Each place with the part of a nested value there."""
    if isinstance(pattern, Place):
        yield pattern, value
    elif isinstance(pattern, dict):
        if not isinstance(value, Mapping) or {*value} != {*pattern}:
            raise GradientError(f"{name} was assigned {_told(value)} where {_told(pattern)} belongs")
        for key, part in dict.items(pattern):
            yield from _pairs(name, part, value[key])
    elif isinstance(pattern, tuple | list):
        if not isinstance(value, tuple | list) or len(value) != len(pattern):
            raise GradientError(f"{name} was assigned {_told(value)} where {_told(pattern)} belongs")
        for part, inside in zip(pattern, value, strict=True):
            yield from _pairs(name, part, inside)


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value))}"
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__
