"""Find modules and parameters that are not registered, in plain lists, dicts and other containers."""

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any

from torch import Tensor
from torch.nn import Module, Parameter

from hookline.model.paths import paths

MOST_ITEMS = 10_000  # items of one attribute that are searched
DEEPEST = 8
OF_MODULES = frozenset(Module().__dict__)  # attributes in which PyTorch keeps registered values and hooks


NO_CONTAINERS = frozenset((bool, int, float, str, bytes, type(None), type, FunctionType, BuiltinFunctionType))


@dataclass(frozen=True, slots=True)
class Unregistered:
    """A module or parameter that is not registered in the model.

    - `path`: the module that holds it;
    - `name`: the expression that leads to it from there, such as "layers[0]";
    - `value`: the module or parameter;
    - `parameters`: the parameters in it that are not registered.
    """

    path: str
    name: str
    value: Module | Tensor
    parameters: tuple[Tensor, ...]


def unregistered(model: Module) -> list[Unregistered]:
    """Find modules and parameters in lists, dicts, sets, dataclasses and partials among the attributes of a model's
    modules, if they have parameters that are not registered. A module that holds the model itself is left out.

    >>> class Stack(Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layers = [torch.nn.Linear(2, 2)]
    >>> import torch
    >>> [(each.name, len(each.parameters)) for each in unregistered(Stack())]
    [('layers[0]', 2)]
    """
    named = paths(model)
    own = {id(module) for module, _ in named}
    known = {id(tensor) for tensor in model.parameters()}
    found: dict[int, Unregistered] = {}
    for module, names in named:
        for attribute, value in [*vars(module).items()]:
            if type(value) in NO_CONTAINERS or attribute in OF_MODULES or isinstance(value, Module | Tensor):
                continue
            for name, part in _parts(value, attribute):
                missing = _missing(part, own, known)
                if missing and id(part) not in found:
                    found[id(part)] = Unregistered(names[0], name, part, missing)
    return [*found.values()]


def _missing(part: Module | Tensor, own: set[int], known: set[int]) -> tuple[Tensor, ...]:
    if isinstance(part, Tensor):
        return () if id(part) in known else (part,)
    inside = [*part.modules()]
    if id(inside[0]) in own or any(id(module) in own for module in inside if [*module.parameters()]):
        return ()
    return tuple(tensor for tensor in part.parameters() if id(tensor) not in known)


def _parts(value: Any, name: str) -> Iterator[tuple[str, Module | Tensor]]:
    """Every module and every parameter in nested containers, with the expression that reaches it."""
    left: deque[tuple[str, Any, int]] = deque([(name, value, 0)])
    seen: set[int] = set()
    while left and len(seen) < MOST_ITEMS:
        name, value, depth = left.popleft()
        if isinstance(value, Module | Parameter):
            yield name, value
            continue
        if id(value) in seen or depth >= DEEPEST:
            continue
        seen.add(id(value))
        left.extend((own, part, depth + 1) for own, part in _items(value, name))


def _items(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    try:
        if isinstance(value, Mapping):
            yield from ((f"{name}[{key!r}]", part) for key, part in value.items())
        elif isinstance(value, list | tuple | deque):
            yield from ((f"{name}[{number}]", part) for number, part in enumerate(value))
        elif isinstance(value, set | frozenset):
            yield from ((f"{name}{{{number}}}", part) for number, part in enumerate(value))
        elif isinstance(value, partial):
            yield from ((f"{name}.args[{number}]", part) for number, part in enumerate(value.args))
            yield from ((f"{name}.keywords[{key!r}]", part) for key, part in value.keywords.items())
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from ((f"{name}.{each.name}", getattr(value, each.name, None)) for each in dataclasses.fields(value))
    except Exception:  # a user's class that cannot be inspected
        return
