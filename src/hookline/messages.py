"""Pieces of text that messages share: shortened lists, names with an article, numbers, and the caller's frame."""

import contextlib
import math
import os
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

CONTEXTLIB = contextlib.__file__
PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many more there are.

    >>> few(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def with_article(name: str) -> str:
    """A name with its article.

    >>> with_article("Linear"), with_article("Attention")
    ('a Linear', 'an Attention')
    """
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


def either(choices: Sequence[str]) -> str:
    """Some choices as a text.

    >>> either(["'raise'"]), either(["'raise'", "'log'", "a function"])
    ("'raise'", "'raise', 'log' or a function")
    """
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))


def wrong_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """The message of an error about an argument that is not one of its choices, which are written as in code.

    >>> wrong_choice("grads", "inputs", ["True", "False", "'input'"])
    "grads must be True, False or 'input', not 'inputs'"
    """
    return f"{name} must be {either(choices)}, not {value!r}"


def counted(number: int, thing: str) -> str:
    """A number of things.

    >>> counted(1, "call"), counted(2000, "call")
    ('1 call', '2,000 calls')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def figure(value: float | None) -> str:
    """A number with four digits; "" for None."""
    if value is None or math.isnan(value):
        return "" if value is None else "nan"
    return f"{value:.4g}"


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds with about three digits."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def engineering(number: float) -> str:
    """A number with three digits and k, M, G or T.

    >>> engineering(0), engineering(1536), engineering(2.5e9)
    ('0 ', '1.54 k', '2.5 G')
    """
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g} "


def outside(*also: str) -> tuple[FrameType, int]:
    """The innermost frame outside this package, the files of `also`, and contextlib, which runs its `with` blocks; and
    the `stacklevel` for a warning from the caller that names this frame."""
    frame, level = sys._getframe(1), 1
    while frame.f_code.co_filename.startswith((PACKAGE, CONTEXTLIB, *also)) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return frame, level


def encodable(value: Any) -> Any:
    """A value; a text with a lone surrogate, which UTF-8 cannot hold, with its escape instead.

    >>> encodable("a\\ud800"), encodable(3)
    ('a\\\\ud800', 3)
    """
    return value.encode("utf-8", errors="backslashreplace").decode() if isinstance(value, str) else value


def dtype_name(dtype: object) -> str:
    """The name of a dtype without its "torch.".

    >>> import torch
    >>> dtype_name(torch.float32)
    'float32'
    """
    return str(dtype).removeprefix("torch.")


def function_name(function: object) -> str:
    """The name of a function; of any other callable that of its class.

    >>> function_name(len), function_name(3)
    ('len', 'int')
    """
    return str(getattr(function, "__qualname__", type(function).__qualname__))
