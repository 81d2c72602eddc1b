"""Walk over tensors in nested values: arguments, outputs, gradients. No other code does."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from torch import Tensor

from hookline.torch_private import is_wrapper_subclass

SCALARS = (bool, int, float, complex, str, type(None))
DEEPEST = 64


class Fields(dict[str, Any]):
    """The parts of a recorded named tuple, dataclass or `ModelOutput`, by name.

    Parts are read by name, by attribute and by position; `type` is the name of the original class. As an attribute a
    part comes before a method of dict: `.values` of a recorded `torch.max(x, 1)` is its values. A part called `type` is
    read as `["type"]`.

    >>> pair = Fields("Pair", {"left": 1, "right": 2})
    >>> pair.left, pair["right"], pair[0]
    (1, 2, 1)
    """

    __slots__ = ("type",)

    def __init__(self, type: str, parts: Mapping[str, Any]) -> None:
        super().__init__(parts)
        self.type = type

    def __getattribute__(self, name: str) -> Any:
        return self[name] if name != "type" and name in self else super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self.type} has no part {name!r}; it has {', '.join(self)}")

    def __getitem__(self, key: str | int) -> Any:
        return [*dict.values(self)][key] if isinstance(key, int) else super().__getitem__(key)

    def __repr__(self) -> str:
        return f"{self.type}({', '.join(f'{name}={part!r}' for name, part in dict.items(self))})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Fields, (self.type, dict(self))


@dataclasses.dataclass(frozen=True, slots=True)
class Opaque:
    """A recorded value that is not a tensor, number, text or known container: only the name of its class."""

    type: str

    def __repr__(self) -> str:
        return f"<{self.type}>"


PLAIN = (*SCALARS, Opaque)


def mirror(value: Any, leaf: Callable[..., Any], *also: Any, kind: type = Tensor, within: tuple[int, ...] = ()) -> Any:
    """`value` as plain data in the same nesting, with each tensor (or value of `kind`) replaced by `leaf` of it, which
    also receives the arguments in `also`.

    Lists, tuples and dicts stay lists, tuples and dicts. Named tuples, structseqs (`torch.max(x, 1)`),
    `PackedSequence`, dataclasses and `ModelOutput`s become `Fields`. Numbers, text and None stay. Anything else becomes
    `Opaque`, as does a value inside itself. `within` has the ids of the containers around the value.

    >>> import torch
    >>> mirror({"a": (torch.zeros(2), 3), "b": object()}, lambda tensor: tuple(tensor.shape))
    {'a': ((2,), 3), 'b': <object>}
    """
    if isinstance(value, kind):
        return leaf(value, *also)
    if value is None or isinstance(value, PLAIN):
        return value
    if id(value) in within or len(within) >= DEEPEST:
        return Opaque(type(value).__name__)
    around = (*within, id(value))

    def inside(part: Any) -> Any:
        return part if part is None else mirror(part, leaf, *also, kind=kind, within=around)

    of = type(value)
    if of is tuple or of is list:
        return of([leaf(part, *also) if type(part) is kind else inside(part) for part in value])
    try:
        named = _named_parts(value)
        items = [*value.items()] if named is None and isinstance(value, Mapping) else None
    except Exception:  # a user's class that cannot be inspected
        return Opaque(type(value).__name__)
    if named is not None:
        return Fields(type_name(value), {name: inside(part) for name, part in named})
    if items is not None:
        return {_plain_key(key): inside(part) for key, part in items}
    if isinstance(value, tuple):
        return tuple([inside(part) for part in value])
    if isinstance(value, list | set | frozenset):
        return [inside(part) for part in value]
    return Opaque(type(value).__name__)


Change: TypeAlias = tuple[Any, Any, Any, Any]  # a container, the key or name of a part, the old part, the new part


def exchange(
    value: Any, other: Callable[[Tensor], Tensor], changes: list[Change], *, within: tuple[int, ...] = ()
) -> Any:
    """`value` with each tensor replaced by `other` of it. Tuples are new; lists, dicts and dataclasses are changed in
    place. `changes` collects the changes for `exchange_back`.

    It descends into the same values as `mirror`, except for sets. Values that cannot be changed stay as they are.

    >>> import torch
    >>> parts, changes = {"a": (torch.ones(2), 3)}, []
    >>> exchange(parts, lambda tensor: tensor + 1, changes) is parts, parts
    (True, {'a': (tensor([2., 2.]), 3)})
    >>> exchange_back(changes)
    >>> parts
    {'a': (tensor([1., 1.]), 3)}
    """
    if isinstance(value, Tensor):
        return other(value)
    if isinstance(value, PLAIN) or id(value) in within or len(within) >= DEEPEST:
        return value
    try:
        old = parts_of(value)
    except Exception:  # a user's class that cannot be inspected
        return value
    around = (*within, id(value))
    new = [exchange(part, other, changes, within=around) for _, part in old]
    if isinstance(value, tuple):
        same = all(part is before for part, (_, before) in zip(new, old, strict=True))
        return value if same else tuple_like(value, new)
    for (key, before), part in zip(old, new, strict=True):
        if part is not before and put_part(value, key, part):
            changes.append((value, key, before, part))
    return value


def exchange_back(changes: list[Change]) -> None:
    """Undo the changes of `exchange`, except in places that were changed again since."""
    for container, key, before, part in reversed(changes):
        now = dict(parts_of(container)).get(key)
        if now is part:
            put_part(container, key, before)
    changes.clear()


def parts_of(value: Any) -> list[tuple[Any, Any]]:
    """The parts of a container by key, name or index; empty for any other value."""
    if isinstance(value, Mapping):
        return [*value.items()]
    named = _named_parts(value)
    if named is not None:
        return [*named]
    return [*enumerate(value)] if isinstance(value, tuple | list) else []


def put_part(container: Any, key: Any, part: Any) -> bool:
    """Set a part of a container; returns whether that was possible."""
    try:
        if isinstance(container, Mapping | list):
            container[key] = part  # type: ignore[index]  # a `ModelOutput` sets its attributes too
        else:
            object.__setattr__(container, key, part)  # a dataclass, which may be frozen
    except (TypeError, AttributeError):
        return False
    return True


def tuple_like(value: tuple[Any, ...], parts: list[Any]) -> Any:
    """A tuple of the same class, with these parts."""
    kind = type(value)
    if hasattr(kind, "n_sequence_fields"):  # a structseq, such as the result of `torch.max(x, 1)`
        return kind(parts)
    twin = tuple.__new__(kind, parts)
    if hasattr(value, "__dict__"):
        twin.__dict__.update(value.__dict__)
    return twin


def tensors(value: Any) -> Iterator[tuple[tuple[str | int, ...], Tensor]]:
    """Every tensor in a nested value with the keys that lead to it, in the order of the value.

    >>> import torch
    >>> [keys for keys, _ in tensors({"a": (torch.zeros(2), None), "b": torch.zeros(1)})]
    [('a', 0), ('b',)]
    """
    yield from leaves(mirror(value, lambda tensor: tensor), kind=Tensor)


def leaves(data: Any, *, kind: type) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every part of `kind` in mirrored data, with the keys that lead to it."""
    if isinstance(data, kind):
        yield (), data
    elif isinstance(data, dict):
        for key, part in dict.items(data):
            yield from (((key, *keys), found) for keys, found in leaves(part, kind=kind))
    elif isinstance(data, tuple | list):
        for place, part in enumerate(data):
            yield from (((place, *keys), found) for keys, found in leaves(part, kind=kind))


def memory_of(tensor: Tensor) -> int | None:
    """An identifier of the storage of a tensor; None if it has none of its own."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # a sparse tensor, a wrapper class, a transform's
        return None


def parts_of_wrapped(tensor: Any) -> Iterator[Tensor]:
    """The inner tensors of a wrapper class, such as a jagged tensor; for any other tensor, itself."""
    if not is_wrapper_subclass(tensor):
        yield tensor
        return
    names, _ = tensor.__tensor_flatten__()
    for part in (getattr(tensor, name) for name in names):
        if isinstance(part, Tensor):  # a DTensor names its mesh too
            yield from parts_of_wrapped(part)


def type_name(value: Any) -> str:
    """The name of a value's class, or of the original class of Fields."""
    return value.type if isinstance(value, Fields) else type(value).__name__


def _named_parts(value: Any) -> Any:
    """The (name, part) pairs of a value whose class names its parts; None for any other value."""
    kind = type(value)
    if kind is Fields:
        return dict.items(value)
    if dataclasses.is_dataclass(kind):
        if isinstance(value, Mapping):
            return value.items()
        return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(kind)]
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return zip(kind._fields, value, strict=False)
    if isinstance(value, tuple) and hasattr(kind, "n_sequence_fields"):
        return zip(kind.__match_args__, value, strict=False)
    return None


def _plain_key(key: Any) -> Any:
    return key if isinstance(key, SCALARS) else str(key)
