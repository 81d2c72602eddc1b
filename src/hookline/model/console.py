"""The only place that imports rich, when something is printed.

Importing rich draws from Python's `random` generator. Its state is restored here, so that printing a result does not
change the results of a program.
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
