"""The command `hookline check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hookline.cli.options import INPUTS, JSON, MODEL, PAGE, TRAIN, WHERE, saving
from hookline.cli.shared import FOUND, load_subject, only_result_on_stdout, print_failure, show, write_page

HELP = (
    "Run a model once, forward and backward, and report what is wrong, where it began, and what to do.\n\n"
    "A row is one finding, the worst first. An error is broken numbers or a part that cannot be trained, a warning is "
    "very likely a mistake, a note is worth knowing. The loss is that of hookline watch. To check training steps, put "
    "`with hookline.check(model) as findings:` around them.\n\n"
    "Exit code 0: nothing above a note. 1: something was found, or the model raised. 2: wrong arguments. 130: Ctrl-C."
)
EXAMPLES = """
[bold]Examples[/bold]

hookline check  [dim]# the demo[/dim]

hookline check net.py:Net --inputs net.py:batch --train

hookline check ./my-bert --inputs 'input_ids=int64\\[1,16]<30522' --json | jq '.findings[].path'
"""


def check(
    model: Annotated[str, MODEL] = "demo",
    inputs: Annotated[str | None, INPUTS] = None,
    where: Annotated[list[str] | None, WHERE] = None,
    train: Annotated[bool | None, TRAIN] = None,
    save: Annotated[Path | None, saving("findings")] = None,
    page: Annotated[Path | None, PAGE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Run a model once and report what is wrong with it."""
    from hookline.tools.check import check as checking

    with only_result_on_stdout(as_json):
        subject = load_subject(model, inputs, train=train)
        findings = checking(subject.model, *subject.args, loss=subject.own_loss, where=where or "**", **subject.kwargs)
    show(findings, as_json=as_json, save=save)
    write_page(findings, page)
    if isinstance(findings.error, Exception):
        print_failure(findings.error)
    raise typer.Exit(FOUND if findings else 0)
