"""Find one tensor of a nested value by its key, and replace it."""

import copy
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeAlias

from torch import Tensor

from hookline.errors import EditError
from hookline.messages import with_article
from hookline.model.tensors import parts_of, put_part, tensors, tuple_like

Keys: TypeAlias = tuple[Any, ...]


def pick(value: Any, key: Any = None, *, whose: str = "the value") -> Keys:
    """The keys that lead to one tensor in a nested value: the one that `key` names, or the only one.

    `key` is a name, an index, or a tuple of these that leads deeper. Raises EditError, with the tensors that are there,
    if it does not name exactly one tensor.

    >>> import torch
    >>> pick({"logits": torch.zeros(2), "cache": None})
    ('logits',)
    >>> pick({"logits": torch.zeros(2), "hidden": (torch.zeros(3), torch.zeros(4))}, ("hidden", -1))
    ('hidden', 1)
    """
    if isinstance(value, Tensor) and key is None:
        return ()
    keys: Keys = ()
    part = value
    for wanted in () if key is None else key if isinstance(key, tuple) else (key,):
        parts = parts_of(part)
        found = _place(parts, wanted)
        if found is None:
            raise EditError(f"{whose} has no part {(*keys, wanted)!r}; it has {what_is_in(value)}")
        own, part = parts[found]
        keys = (*keys, own)

    if isinstance(part, Tensor):
        return keys
    inside = [deeper for deeper, _ in tensors(part)]
    if len(inside) == 1:
        return (*keys, *inside[0])
    if not inside:
        raise EditError(f"{whose} holds no tensor{f' at {keys!r}' if keys else ''}; it is {what_is_in(value)}")
    raise EditError(
        f"{whose} holds {len(inside)} tensors; pick one with key=, such as key={_shown((*keys, *inside[0]))}. "
        f"It has {what_is_in(value)}"
    )


def part_at(value: Any, keys: Keys) -> Any:
    """The part of a value at these keys, which `pick` returned."""
    for key in keys:
        value = dict(parts_of(value))[key]
    return value


def with_part(value: Any, keys: Keys, new: Any) -> Any:
    """The value with another part at these keys. The containers on the way are new, everything else is the same.

    >>> given = [1, {"a": 2}]
    >>> with_part(given, (1, "a"), 3), given
    ([1, {'a': 3}], [1, {'a': 2}])
    """
    if not keys:
        return new
    first, *rest = keys
    parts = dict(parts_of(value))
    parts[first] = with_part(parts[first], tuple(rest), new)
    if isinstance(value, tuple):
        return tuple_like(value, [*parts.values()])
    with suppress(Exception):  # a user's class may allow neither copying nor setting its parts
        twin = dict(value) if type(value) is dict else copy.copy(value)
        if put_part(twin, first, parts[first]):
            return twin
    raise EditError(f"{with_article(type(value).__name__)} does not allow setting its part {first!r}")


def what_is_in(value: Any) -> str:
    """The tensors in a value with key, dtype and shape, in a line."""
    found = [*tensors(value)]
    if not found:
        return with_article(type(value).__name__) if value is not None else "None"
    shown = ", ".join(f"{_shown(keys)}: {_described(tensor)}" if keys else _described(tensor) for keys, tensor in found)
    return shown if len(shown) < 1000 else shown[:1000] + "..."


def _place(parts: list[tuple[Any, Any]], wanted: Any) -> int | None:
    """The index of the part that a key names or counts to."""
    for place, (key, _) in enumerate(parts):
        if key == wanted and type(key) is type(wanted):
            return place
    counted = isinstance(wanted, int) and -len(parts) <= wanted < len(parts)
    return wanted % len(parts) if counted else None


def _shown(keys: Keys) -> str:
    return repr(keys[0]) if len(keys) == 1 else repr(keys)


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}[{', '.join(map(str, tensor.shape))}]"


def named(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[int | str, Any]:
    """The arguments of a call as one value: positional ones by index, keyword arguments by name."""
    value: dict[int | str, Any] = {place: part for place, part in enumerate(args)}  # noqa: C416  # dynamo reads this
    for name, part in kwargs.items():
        value[name] = part
    return value


def as_arguments(value: Mapping[int | str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The (args, kwargs) for a value that `named` returned."""
    args = tuple(part for key, part in value.items() if isinstance(key, int))
    return args, {key: part for key, part in value.items() if isinstance(key, str)}
