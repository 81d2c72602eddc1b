"""The command `hookline monitor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hookline.cli.options import JSON, PAGE
from hookline.cli.shared import expanded, print_note, show
from hookline.errors import SourceError

if TYPE_CHECKING:
    from hookline.monitoring.monitored import Monitor

HELP = (
    "Show what every layer did over a training run, from the folder that `hookline.monitor(..., to=DIR)` writes, also "
    "while it is written.\n\n"
    "Prints a table; --page writes the page, --serve shows it in a browser and follows the run. With two folders the "
    "runs are drawn over one another, and the list says at which step each figure first differs."
)
EXAMPLES = """
[bold]Examples[/bold]

hookline monitor runs/a

hookline monitor runs/a --serve 8000

hookline monitor runs/a --around 4180  [dim]# which figures changed most at this step[/dim]

hookline monitor runs/a runs/b --page both.html
"""


def monitor(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR [DIR]", parser=Path, help="The folder of a run, or of two.")
    ],
    around: Annotated[
        int | None, typer.Option(metavar="STEP", help="List the figures that changed most at this step.")
    ] = None,
    page: Annotated[Path | None, PAGE] = None,
    serve: Annotated[
        int | None, typer.Option(metavar="PORT", help="Show the page at http://127.0.0.1:PORT until Ctrl-C.")
    ] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Show what every layer did over a training run."""
    if len(folders) > 2:
        raise SourceError(f"monitor takes one folder, or two to compare, not {len(folders)}")
    places = [expanded(folder) for folder in folders]
    runs = {str(folder): read(place) for folder, place in zip(folders, places, strict=True)}
    if len({*places}) < len(places):
        raise SourceError("both folders are the same")
    first = next(iter(runs.values()))
    if around is not None:
        shifts(first, around)
    elif len(runs) == 2:
        departures(*runs.values())
    else:
        show(first, as_json=as_json)
    if page is not None:
        write_page(page, runs)
    if serve is not None:
        from hookline.cli.serving import serve_pages

        serve_pages(
            serve, lambda: page_of({str(folder): read(place) for folder, place in zip(folders, places, strict=True)})
        )


def read(folder: Path) -> Monitor:
    """The run in a folder."""
    from hookline.loading import load
    from hookline.monitoring.monitored import Monitor

    found = load(folder)
    if not isinstance(found, Monitor):
        raise SourceError(f"{folder} holds a {type(found).__name__}, and no run of a monitor; hookline report shows it")
    return found


def shifts(run: Monitor, step: int) -> None:
    """Print which figures changed most at a step."""
    found = run.around(step)
    for shift in found:
        was, now = f"{shift.typical:.4g}", f"{shift.value:.4g}"
        typer.echo(f"step {shift.step}: {shift.path or '(the model)'} {shift.of} {shift.figure}: {now}, before {was}")
    if not found:
        typer.echo(f"step {step}: no figure has samples before it")


def departures(one: Monitor, other: Monitor) -> None:
    """Print at which step each figure of two runs first differs."""
    found = one.departures(other)
    for each in found[:40]:
        values = f"{each.one:.6g} and {each.other:.6g}"
        typer.echo(f"step {each.step}: {each.path or '(the model)'} {each.of} {each.figure}: {values}")
    if len(found) > 40:
        typer.echo(f"and {len(found) - 40:,} more series")
    if not found:
        typer.echo("no figure differs at the steps that both have")


def page_of(runs: dict[str, Monitor], *, refresh: int = 10) -> str:
    """The page of some runs."""
    from hookline.report.monitor_table import monitor_html
    from hookline.report.page import page
    from hookline.report.page.monitor_page import monitor_document

    table = "".join(monitor_html(run) for run in runs.values())
    named = runs if len(runs) > 1 else next(iter(runs.values()))
    return page(monitor_document(named, refresh=refresh), table)


def write_page(file: Path, runs: dict[str, Monitor]) -> None:
    """Write the page of some runs."""
    from hookline.store.file import write_text

    write_text(file, page_of(runs, refresh=0))
    print_note(f"wrote {file}: open it in a browser")
