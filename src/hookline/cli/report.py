"""The command `hookline report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hookline.cli.options import PAGE
from hookline.cli.shared import expanded, write_page

HELP = (
    "Write the page of a saved result, such as a run or a diff: one HTML file with the tree of calls, their figures, "
    "pictures and search.\n\n"
    "Without --page it is written next to the folder: the page of `before/` is `before.html`."
)
EXAMPLES = """
[bold]Examples[/bold]

hookline report before/  [dim]# writes before.html[/dim]

hookline report port-diff/ --page port.html
"""


def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", parser=Path, help="What hookline saved: a run, a diff, another result."),
    ],
    page: Annotated[Path | None, PAGE] = None,
) -> None:
    """Write the page of what was saved."""
    from hookline.loading import load

    saved = expanded(folder)
    found = load(saved if saved.is_dir() else folder)
    write_page(found, page or saved.with_name(f"{saved.name or 'report'}.html"))
