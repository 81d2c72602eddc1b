"""The codec of saved documents: turns data into JSON values, and back with every member checked.

A `Schema` describes objects of one class, whose members are known. A `Writer` and a `Reader` are for values of any
nesting, such as inputs and outputs of modules.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import Tensor

from hookline.errors import StoreError
from hookline.messages import with_article
from hookline.model.sharded import local_part
from hookline.model.tensors import SCALARS, Fields, Opaque
from hookline.store.members import (
    NOT_FINITE,
    MemberError,
    Read,
    expect_object,
    listed,
    member,
    number,
    one_of,
    pair,
    parts,
    shown,
    text,
)

T = TypeVar("T")
DEEPEST = 100  # levels of nesting: more than any recorded value has, and below Python's recursion limit


# Objects with known members


def plain(value: Any) -> Any:
    """A value for JSON: a number that is not finite as text, a tuple as a list, a dataclass as an object."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return value


class Schema(Generic[T]):
    """Saves values of one class as an object with these members.

    - `kind`: the class, which is called with the members by name;
    - `members`: the reader of each member;
    - `optional`: the same for members that are left out if they are None;
    - `beside`: other members of the object, which the user of the schema writes and reads.
    """

    def __init__(
        self,
        kind: Callable[..., T],
        members: Mapping[str, Read[Any]],
        *,
        optional: Mapping[str, Read[Any]] | None = None,
        beside: Iterable[str] = (),
    ) -> None:
        self.kind = kind
        self.members = dict(members)
        self.optional = dict(optional or {})
        self.known = frozenset((*self.members, *self.optional, *beside))

    def write(self, value: T) -> dict[str, Any]:
        """The object for a value."""
        found = {name: plain(getattr(value, name)) for name in (*self.members, *self.optional)}
        return {name: part for name, part in found.items() if part is not None or name in self.members}

    def values(self, data: Any) -> dict[str, Any]:
        """The checked members of an object; MemberError where one is wrong."""
        expect_object(data, self.known)
        found = {name: member(data, name, read) for name, read in self.members.items()}
        return found | {name: member(data, name, read) for name, read in self.optional.items() if name in data}

    def read(self, data: Any) -> T:
        """The value of an object; MemberError where a member is wrong."""
        return self.kind(**self.values(data))


# Values of any nesting


@dataclass(frozen=True, slots=True)
class Kind:
    """An additional kind of value in a document.

    - `type`: its class;
    - `write`: returns the members of its object;
    - `read`: returns the value of an object.
    """

    type: type
    write: Callable[["Writer", Any, str], dict[str, Any]]
    read: Callable[["Reader", Any], Any]


@dataclass(slots=True)
class Writer:
    """Writes values: numbers, text, None and lists as themselves, everything else as an object with its `kind`.

    `tensors` are the tensors that the objects name. One that occurs several times is stored once, under its first name.
    """

    kinds: Mapping[str, Kind] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    prefix: str = ""
    _names: dict[int, str] = field(default_factory=dict)
    _depth: int = 0

    def value(self, data: Any, name: str) -> Any:
        """A value for JSON; tensors in it are named after `name`. StoreError where it cannot be saved."""
        for kind, own in self.kinds.items():
            if isinstance(data, own.type):
                with self._inside(name):
                    return {"kind": kind, **own.write(self, data, name)}
        if isinstance(data, bool | int | str | None):
            return data
        if isinstance(data, float):
            return data if math.isfinite(data) else {"kind": "float", "value": plain(data)}
        if isinstance(data, complex):
            return {"kind": "complex", "value": plain((data.real, data.imag))}
        if isinstance(data, Tensor):
            return {"kind": "stored", "name": self.put(data, name)}
        if isinstance(data, Opaque):
            return {"kind": "opaque", "type": data.type}
        if isinstance(data, list | tuple | dict):
            with self._inside(name):
                return self._container(data, name)
        raise StoreError(
            f"{name} holds {with_article(type(data).__name__)}; only tensors, numbers, text, lists, tuples and dicts "
            "can be saved"
        )

    def put(self, tensor: Tensor, name: str) -> str:
        """Store a tensor and return its name, which is `name` unless it has one already."""
        name = self._names.setdefault(id(tensor), self.prefix + name)
        self.tensors[name] = local_part(tensor)
        return name

    def _container(self, data: Any, name: str) -> Any:
        if isinstance(data, list):
            return self._all(data, name)
        if isinstance(data, tuple):
            return {"kind": "tuple", "parts": self._all(data, name)}
        keys, values = self._all(data, name), self._all(dict.values(data), name)
        kind = {"kind": "fields", "type": data.type} if isinstance(data, Fields) else {"kind": "dict"}
        return {**kind, "parts": [[key, part] for key, part in zip(keys, values, strict=True)]}

    def _all(self, values: Iterable[Any], name: str) -> list[Any]:
        return [self.value(part, f"{name}.{place}") for place, part in enumerate(values)]

    @contextmanager
    def _inside(self, name: str) -> Iterator[None]:
        """A block inside a value; StoreError where it is nested too deep to read back."""
        if self._depth == DEEPEST - 1:
            raise StoreError(f"{name} cannot be saved: it is nested more than {DEEPEST - 1} deep")
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1


class Reader:
    """Reads values back, with the tensors that they name; MemberError where one is wrong."""

    def __init__(self, tensors: Mapping[str, Tensor], kinds: Mapping[str, Kind] | None = None) -> None:
        self.tensors = dict(tensors)
        self.readers = {**USUAL, **{name: kind.read for name, kind in (kinds or {}).items()}}
        self._depth = 0

    def value(self, data: Any) -> Any:
        """A value: null, true, false, a number, text, a list of values, or an object with its kind."""
        if not isinstance(data, list | dict):
            return number(data) if isinstance(data, float) else data
        if self._depth == DEEPEST:
            raise MemberError(f"is nested more than {DEEPEST} deep")
        self._depth += 1
        try:
            if isinstance(data, list):
                return parts(data, self.value)
            kind = member(data, "kind", one_of(*self.readers))
            return self.readers[kind](self, data)
        finally:
            self._depth -= 1

    def named(self, name: Any) -> Tensor:
        """The tensor of this name."""
        if text(name) not in self.tensors:
            raise MemberError(f"names a tensor {shown(name)} that is not in tensors.safetensors")
        return self.tensors[name]


def _stored(reader: Reader, data: Any) -> Tensor:
    return member(expect_object(data, frozenset(("kind", "name"))), "name", reader.named)


def _float(_: Reader, data: Any) -> float:
    value = member(expect_object(data, frozenset(("kind", "value"))), "value", one_of(*NOT_FINITE))
    return NOT_FINITE[value]


def _complex(_: Reader, data: Any) -> complex:
    expect_object(data, frozenset(("kind", "value")))
    return complex(*member(data, "value", lambda value: pair(value, number)))


def _opaque(_: Reader, data: Any) -> Opaque:
    return Opaque(member(expect_object(data, frozenset(("kind", "type"))), "type", text))


def _tuple(reader: Reader, data: Any) -> tuple[Any, ...]:
    return member(expect_object(data, frozenset(("kind", "parts"))), "parts", listed(reader.value))


def _dict(reader: Reader, data: Any) -> dict[Any, Any]:
    return _pairs(reader, expect_object(data, frozenset(("kind", "parts"))), SCALARS, "a number, text or null")


def _fields(reader: Reader, data: Any) -> Fields:
    expect_object(data, frozenset(("kind", "type", "parts")))
    return Fields(member(data, "type", text), _pairs(reader, data, (str,), "text"))


def _pairs(reader: Reader, data: Any, kinds: Any, what: str) -> dict[Any, Any]:
    """The parts of a mapping, whose keys are of these classes."""
    found: dict[Any, Any] = {}

    def put(each: Any) -> None:
        key, part = pair(each, reader.value)
        if not isinstance(key, kinds):
            raise MemberError(f"a key must be {what}, not {with_article(type(key).__name__)}").within(0)
        if key in found:
            raise MemberError(f"the key {shown(key)} is here twice").within(0)
        found[key] = part

    member(data, "parts", listed(put))
    return found


USUAL: Mapping[str, Callable[[Reader, Any], Any]] = {
    **{"stored": _stored, "float": _float, "complex": _complex, "opaque": _opaque},
    **{"tuple": _tuple, "dict": _dict, "fields": _fields},
}
