"""The codec of saved documents: plain data to what JSON holds, and back with every member checked."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from hookline.store.members import Read, expect_object, member

T = TypeVar("T")


def plain(value: Any) -> Any:
    """A value as JSON holds it: a number that is not finite as text, a tuple as a list, a dataclass as an object."""
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
    """How values of one class are saved: as an object with the named members, each read by its reader and given to the
    class by its name.

    `derived` are properties that are written for whoever reads the document and not read back.
    """

    def __init__(self, kind: type[T], members: Mapping[str, Read[Any]], *, derived: Iterable[str] = ()) -> None:
        self.kind = kind
        self.members = dict(members)
        self.derived = tuple(derived)
        self.known = frozenset((*self.members, *self.derived))

    def write(self, value: T) -> dict[str, Any]:
        """The object of a value."""
        return {name: plain(getattr(value, name)) for name in (*self.derived, *self.members)}

    def read(self, data: Any) -> T:
        """The value of an object; MemberError where it is not one."""
        expect_object(data, self.known)
        return self.kind(**{name: member(data, name, read) for name, read in self.members.items()})
