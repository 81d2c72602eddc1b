"""The command `hookline profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hookline.cli.options import GRADS, INPUTS, JSON, MODEL, PAGE, TRAIN, WHERE, for_writing, saving
from hookline.cli.shared import (
    load_subject,
    model_errors_reported,
    only_result_on_stdout,
    print_error,
    print_note,
    show,
    status,
    write_page,
)
from hookline.errors import RecordError

HELP = (
    "Run a model a few times and show what every module costs: total and self time of forward and backward in "
    "milliseconds, FLOPs, bytes saved for backward, parameters.\n\n"
    "A bar is the module's share of the self time; all bars add up to the whole. With --meta nothing is computed and "
    "no weights are loaded: FLOPs and bytes only."
)
EXAMPLES = """
[bold]Examples[/bold]

hookline profile  [dim]# the demo[/dim]

hookline profile ./my-bert --inputs 'input_ids=int64\\[8,128]<30522' --repeat 20 --save before/

hookline profile net.py:Net --inputs net.py:batch --trace trace.json  [dim]# open it at ui.perfetto.dev[/dim]

hookline profile net.py:Net --inputs 'float32\\[2,3,224,224]' --meta --json | jq '.costs[0].flops'
"""
TRACE = typer.Option(
    metavar="FILE",
    parser=Path,
    show_default=False,
    callback=for_writing,
    help="Write the last step as a trace for Perfetto.",
)


def profile(
    model: Annotated[str, MODEL] = "demo",
    inputs: Annotated[str | None, INPUTS] = None,
    where: Annotated[list[str] | None, WHERE] = None,
    repeat: Annotated[int, typer.Option(metavar="N", help="Number of timed steps.")] = 5,
    warmup: Annotated[int, typer.Option(metavar="N", help="Number of steps before them, not timed.")] = 1,
    grads: Annotated[bool, GRADS] = True,
    train: Annotated[bool | None, TRAIN] = None,
    meta: Annotated[bool, typer.Option("--meta", help="Count FLOPs and bytes without computing anything.")] = False,
    trace: Annotated[Path | None, TRACE] = None,
    save: Annotated[Path | None, saving("profile")] = None,
    page: Annotated[Path | None, PAGE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Show what every module of a model costs."""
    from hookline.tools.profile import profile as profiling

    if meta and trace:
        raise RecordError("--trace needs times, and --meta measures none: leave one of them out")
    with only_result_on_stdout(as_json):
        subject = load_subject(model, inputs, train=train)
        options: dict[str, Any] = {
            "loss": subject.loss,
            "backward": grads,
            "repeat": repeat,
            "warmup": warmup,
            "meta": meta,
        }
        with status("profiling"), model_errors_reported():
            found = profiling(subject.model, *subject.args, where=where or "**", **options, **subject.kwargs)
    if as_json and found.uncounted:
        print_error(found.why_uncounted)
    show(found, as_json=as_json, save=save)
    if trace:
        found.perfetto(trace)
        print_note(f"wrote {trace}")
    write_page(found, page)
