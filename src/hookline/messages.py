"""What messages share: cut lists, names with their article, and where the code outside of this package is."""

import contextlib
import os
import sys
from collections.abc import Sequence
from types import FrameType

CONTEXTLIB = contextlib.__file__
PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def few(names: Sequence[str], most: int = 5) -> str:
    """The first of these, and how many more there are.

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


def outside() -> tuple[FrameType, int]:
    """The innermost frame outside of this package and of contextlib, which runs `with` blocks for it; and the
    `stacklevel` of a warning of whoever asks that is to name it."""
    frame, level = sys._getframe(1), 1
    while frame.f_code.co_filename.startswith((PACKAGE, CONTEXTLIB)) and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
    return frame, level
