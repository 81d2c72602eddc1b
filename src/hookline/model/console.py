"""The door to rich: whoever prints imports it from here, when something is printed.

To import rich draws from Python's `random` generator. Here that is put back, so that printing a result changes nothing
that a program computes.
"""

import random

_state = random.getstate()
from rich.cells import cell_len  # noqa: E402
from rich.console import Console, ConsoleOptions, Group, RenderResult  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.style import Style  # noqa: E402
from rich.table import Column, Table  # noqa: E402
from rich.text import Text  # noqa: E402

random.setstate(_state)

__all__ = [
    "Column",
    "Console",
    "ConsoleOptions",
    "Group",
    "RenderResult",
    "Style",
    "Table",
    "Text",
    "cell_len",
    "track",
]
