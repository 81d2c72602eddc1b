"""The parts of the documents of all pages. docs/format.md shows one."""

import math
from collections.abc import Iterable
from typing import Any

VERSION = 1
DIGITS = 6


class Names:
    """Texts and other small values that repeat, by number."""

    def __init__(self) -> None:
        self.places: dict[Any, int] = {}

    def __call__(self, thing: Any) -> int:
        """The number of a value, which is a new number for a new value."""
        return self.places.setdefault(thing, len(self.places))

    def __iter__(self) -> Any:
        return iter(self.places)


def document(kind: str, **parts: Any) -> dict[str, Any]:
    """A document of one kind, with the members that every document has."""
    return {"format": "hookline page", "version": VERSION, "kind": kind, **parts}


def mark(level: str, call: int | None, text: str, **more: Any) -> dict[str, Any]:
    """A mark: something to look at, with its level, its call and a text."""
    return {"level": level, "call": call, "text": text, **{name: value for name, value in more.items() if value}}


def number(value: Any) -> Any:
    """A number with six digits; text if it is not finite; any other value unchanged."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return str(value)
    return float(f"{value:.{DIGITS}g}") if value else 0


def cut(row: Iterable[Any]) -> list[Any]:
    """A row without the Nones at its end."""
    cells = [*row]
    while cells and cells[-1] is None:
        cells.pop()
    return cells


def keys_text(keys: Iterable[str | int]) -> str:
    """The keys that lead to a tensor, joined by dots."""
    return ".".join(map(str, keys))
