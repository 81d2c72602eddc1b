"""Readers of the members of a document: functions of a JSON value that return the checked value or raise `MemberError`.

`MemberError` collects the keys that lead to it while it propagates, so that a correct document pays nothing for them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import torch

from hookline.errors import StoreError
from hookline.store.opening import shortened

T = TypeVar("T")
Read: TypeAlias = Callable[[Any], T]

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
DTYPES = {name: found for name in dir(torch) if isinstance(found := getattr(torch, name), torch.dtype)}
LARGEST = 2**63 - 1
LONGEST = 60  # characters of a value in an error


class MemberError(Exception):
    """A member of a document is wrong: what was expected, what is there, and the keys that lead to it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.keys: list[str | int] = []

    def within(self, key: str | int) -> "MemberError":
        """The same, seen from the object or list around it."""
        self.keys.insert(0, key)
        return self

    def __str__(self) -> str:
        where, what = shown_keys(self.keys), str(self.args[0])
        return what if not where else f"{where}: {what}" if what.startswith("expected") else f"{where} {what}"


@contextmanager
def damage_told(of: str) -> Iterator[None]:
    """A block that turns a MemberError into a StoreError with the name of the document."""
    try:
        yield
    except MemberError as wrong:
        raise StoreError(f"{of} is damaged: {wrong}") from None


def expected(what: str, value: Any) -> MemberError:
    """The error about an unexpected value."""
    return MemberError(f"expected {what}, got {shown(value)}")


def shown(value: Any) -> str:
    """A JSON value for an error, shortened."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = ascii(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    text = "null" if value is None else text
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def shown_keys(keys: list[str | int]) -> str:
    """Keys as in code: `calls[3].output.shape`."""
    steps = [f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!a}]" for key in keys]
    return shortened("".join(steps).removeprefix("."))


# Objects and lists


def expect_object(value: Any, known: frozenset[str] | None = None) -> dict[str, Any]:
    """An object; if `known` is given, without other members."""
    if not isinstance(value, dict):
        raise expected("an object", value)
    if known is not None and not value.keys() <= known:
        raise MemberError(f"unknown member {shown(next(iter(value.keys() - known)))}")
    return value


def member(data: Mapping[str, Any], name: str, read: Read[T]) -> T:
    """A required member."""
    if name not in data:
        raise MemberError("is missing").within(name)
    try:
        return read(data[name])
    except MemberError as wrong:
        raise wrong.within(name) from None


def optional(data: Mapping[str, Any], name: str, read: Read[T], usual: T) -> T:
    """An optional member, or its default."""
    return member(data, name, read) if name in data else usual


def parts(value: Any, read: Read[T]) -> list[T]:
    """The parts of a list."""
    if not isinstance(value, list):
        raise expected("a list", value)
    found: list[T] = []
    try:
        for part in value:
            found.append(read(part))
    except MemberError as wrong:
        raise wrong.within(len(found)) from None
    return found


def listed(read: Read[T]) -> Read[tuple[T, ...]]:
    """A reader of lists of parts with this reader."""
    return lambda value: tuple(parts(value, read))


def pair(value: Any, read: Read[T]) -> tuple[T, T]:
    """A list of two."""
    found = parts(value, read)
    if len(found) != 2:
        raise expected("a list of 2", value)
    return found[0], found[1]


def mapped(read: Read[T]) -> Read[dict[str, T]]:
    """A reader of objects whose members all have this reader."""

    def of(value: Any) -> dict[str, T]:
        return {name: member(value, name, read) for name in expect_object(value)}

    return of


# Values


def text(value: Any) -> str:
    """Text."""
    if not isinstance(value, str):
        raise expected("text", value)
    return value


def flag(value: Any) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise expected("true or false", value)
    return value


def count(value: Any) -> int:
    """A whole number from 0 that fits in 64 bits."""
    return whole(value, 0)


def whole(value: Any, least: int = -LARGEST, most: int = LARGEST) -> int:
    """A whole number from `least` to `most`."""
    if type(value) is not int:
        raise expected("a whole number", value)
    if not least <= value <= most:
        above = f"from {least} to {most}" if most != LARGEST else f"of at least {least}"
        raise expected(f"a whole number {above}" if least != -LARGEST else "a whole number of 64 bits", value)
    return value


def number(value: Any) -> float:
    """A number; one that is not finite is stored as text."""
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and abs(value) <= LARGEST:
        return value
    if isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    raise expected("a number, or 'nan', 'inf' or '-inf'", value)


def finite(value: Any) -> float:
    """A finite number."""
    found = number(value)
    if not math.isfinite(found):
        raise expected("a finite number", value)
    return found


def shape(value: Any) -> tuple[int, ...]:
    """A shape, with -1 for a ragged dimension."""
    return tuple(parts(value, lambda size: whole(size, -1)))


def dtype(value: Any) -> torch.dtype:
    """A dtype by its name in PyTorch."""
    if text(value) not in DTYPES:
        raise expected("the name of a dtype, such as 'float32'", value)
    return DTYPES[value]


def device(value: Any) -> torch.device:
    """A device by its name in PyTorch."""
    try:
        return torch.device(text(value))
    except (RuntimeError, ValueError):
        raise expected("the name of a device, such as 'cuda:0'", value) from None


def maybe(read: Read[T]) -> Read[T | None]:
    """A reader of the same or null."""
    return lambda value: None if value is None else read(value)


def one_of(*known: str) -> Read[str]:
    """A reader of one of these texts."""

    def of(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise expected(f"one of {', '.join(map(repr, known))}", value)
        return value

    return of
