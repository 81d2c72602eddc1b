"""Documents with one member made wrong: each in turn is left out, or becomes something else of JSON."""

import copy
from collections.abc import Iterator
from typing import Any

DEEP: list[Any] = []
for _ in range(300):
    DEEP = [DEEP]

VALUES = (
    None,
    True,
    0,
    -1,
    10**400,
    0.5,
    1e999,
    "",
    "text",
    "\ud800\x00[bold]",
    "nan",
    [],
    [[]],
    {},
    {"kind": "tuple"},
)
WRONG = (*VALUES, {"kind": "dict", "parts": [[[], 1]]}, {"kind": "stored", "name": "nowhere"}, DEEP)
LEAVE_OUT = object()


def places(document: Any, keys: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The keys of every member of a document."""
    inside = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, part in inside:
        yield (*keys, key)
        yield from places(part, (*keys, key))


def mutations(document: Any) -> Iterator[tuple[str, Any]]:
    """Each wrong document, with what is wrong in it."""
    for keys in places(document):
        for value in (LEAVE_OUT, *WRONG):
            yield f"{keys} {'left out' if value is LEAVE_OUT else repr(value)[:40]}", changed(document, keys, value)


def changed(document: Any, keys: tuple[str | int, ...], value: Any) -> Any:
    """The document with another value under some keys."""
    new = copy.deepcopy(document)
    around = new
    for key in keys[:-1]:
        around = around[key]
    if value is LEAVE_OUT:
        del around[keys[-1]]
    else:
        around[keys[-1]] = value
    return new
