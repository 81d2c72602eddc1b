"""What the documents of all pages are made of. docs/format.md shows one."""

import math
from collections.abc import Iterable
from typing import Any

VERSION = 1
DIGITS = 6


class Names:
    """Texts and other small things that come again and again, by number."""

    def __init__(self) -> None:
        self.places: dict[Any, int] = {}

    def __call__(self, thing: Any) -> int:
        """The number of a thing, which is a new one where it is new."""
        return self.places.setdefault(thing, len(self.places))

    def __iter__(self) -> Any:
        return iter(self.places)


def document(kind: str, **parts: Any) -> dict[str, Any]:
    """A document of one kind, with what every document begins with."""
    return {"format": "hookline page", "version": VERSION, "kind": kind, **parts}


def mark(level: str, call: int | None, text: str, **more: Any) -> dict[str, Any]:
    """Something to be looked at: how bad, in which call, in words."""
    return {"level": level, "call": call, "text": text, **{name: value for name, value in more.items() if value}}


def number(value: Any) -> Any:
    """A number in six digits; one that is not finite as text, None where there is none."""
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
