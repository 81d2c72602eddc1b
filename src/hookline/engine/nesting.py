"""Gradients in the nesting of the values they belong to."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hookline.errors import GradientError
from hookline.model.tensors import Fields, mirror


class Place:
    """Where the gradient of a tensor stands in a nested value."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


FIRST = Place(0)


def pattern(value: Any, places: dict[int, int]) -> Any:
    """The nesting of a value with a Place for each tensor whose id is in `places`."""
    return mirror(value, lambda tensor: Place(places[id(tensor)]) if id(tensor) in places else None)


def fill(pattern: Any, gradients: list[Tensor | None]) -> Any:
    """The nesting with the gradients in their places, and None for all else.

    >>> import torch
    >>> x, y = torch.zeros(1), torch.zeros(1)
    >>> fill(pattern([x, 3, {"y": y}], {id(x): 0, id(y): 1}), [torch.ones(1), None])
    [tensor([1.]), None, {'y': None}]
    """
    if isinstance(pattern, Place):
        return gradients[pattern.index]
    if isinstance(pattern, Fields):
        return Fields(pattern.type, {name: fill(part, gradients) for name, part in dict.items(pattern)})
    if isinstance(pattern, dict):
        return {key: fill(part, gradients) for key, part in pattern.items()}
    if isinstance(pattern, tuple | list):
        return type(pattern)([fill(part, gradients) for part in pattern])
    return None


def assigned(name: str, pattern: Any, value: Any, gradients: list[Tensor | None]) -> list[Tensor | None]:
    """The gradients by place after a step may have assigned others in the nesting; GradientError for what does not fit.

    None in the place of a gradient stands for zeros.
    """
    new = gradients
    for place, found in _pairs(name, pattern, value):
        old = gradients[place.index]
        if found is old:
            continue
        if old is None:
            raise GradientError(f"{name} was assigned a gradient where none flows; leave None there")
        if found is not None and (not isinstance(found, Tensor) or found.shape != old.shape):
            shape = f"a tensor of shape {[*found.shape]}" if isinstance(found, Tensor) else f"{type(found).__name__}"
            raise GradientError(f"{name} was assigned {shape} where a gradient of shape {[*old.shape]} belongs")
        if new is gradients:
            new = [*gradients]
        new[place.index] = torch.zeros_like(old) if found is None else found
    return new


def _pairs(name: str, pattern: Any, value: Any) -> Any:
    """Each place with what a nested value has in it."""
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
