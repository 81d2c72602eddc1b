"""The command `hookline totals`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hookline.cli.options import (
    BATCH,
    CALL,
    DATA,
    ID,
    JSON,
    KEEP,
    MASK,
    MODEL,
    PAGE,
    POINTS,
    POSITIONS,
    SAMPLE,
    SEED,
    SKIP,
    TEXT,
    Keep,
    saving,
)
from hookline.cli.shared import model_errors_reported, only_result_on_stdout, show, status, write_page
from hookline.errors import ArgumentError

HELP = (
    "Run a model over a data set and add up the activations of some modules, without storing any: mean, std, min, max "
    "and zeros, and covariance, quantiles or the largest values where asked for.\n\n"
    "--part 2/8 takes part 2 of 8, counting from 0; in Python, sum(map(hookline.load, folders)) adds the saved parts, "
    "to the same bits as one process.\n\n"
    "Exit code 0: all was added up. 1: the model raised. 2: wrong arguments. 130: Ctrl-C."
)
EXAMPLES = """
[bold]Examples[/bold]

hookline totals --where stem --quantiles  [dim]# the demo[/dim]

hookline totals ./my-bert --data texts.jsonl --where 'encoder.layer.*' --mask attention_mask --covariance --save totals

hookline totals net.py:Net --data data.py:examples --where trunk --part $SLURM_ARRAY_TASK_ID/8 --save part3
"""

PART = typer.Option(metavar="N/OF", show_default=False, help="Only part N of so many, counting from 0.")
TOP = typer.Option(metavar="N", show_default=False, help="The N largest values of each feature, with their examples.")


def totals(
    where: Annotated[list[str], POINTS],
    model: Annotated[str, MODEL] = "demo",
    data: Annotated[str, DATA] = "demo",
    call: Annotated[str | None, CALL] = None,
    text: Annotated[str, TEXT] = "text",
    mask: Annotated[str | None, MASK] = None,
    position: Annotated[list[int] | None, POSITIONS] = None,
    sample: Annotated[int | None, SAMPLE] = None,
    seed: Annotated[int, SEED] = 0,
    keep: Annotated[Keep, KEEP] = Keep.output,
    covariance: Annotated[bool, typer.Option("--covariance", help="The covariance of the features.")] = False,
    quantiles: Annotated[bool, typer.Option("--quantiles", help="How the values are distributed.")] = False,
    top: Annotated[int | None, TOP] = None,
    batch: Annotated[int, BATCH] = 32,
    id: Annotated[str | None, ID] = None,
    skip: Annotated[bool, SKIP] = False,
    part: Annotated[str | None, PART] = None,
    save: Annotated[Path | None, saving("totals")] = None,
    page: Annotated[Path | None, PAGE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Add up the activations of a data set."""
    share = None if part is None else part_of(part)
    with only_result_on_stdout(as_json):
        with status(f"loading {model}"):
            from hookline.cli.data import load_task, rows_of
            from hookline.tools.totals import totals as adding_up

            task = load_task(model, data, call, text)
        with model_errors_reported():
            found = adding_up(
                task.model,
                task.data,
                where,
                covariance=covariance,
                quantiles=quantiles,
                top=top,
                call=task.call,
                rows=rows_of(mask, position, sample, seed),
                keep=keep.value,
                batch=batch,
                id=id,
                errors="skip" if skip else "raise",
                part=share,
            )
    show(found, as_json=as_json, save=save)
    write_page(found, page)


def part_of(text: str) -> tuple[int, int]:
    """The two numbers of a --part; ArgumentError where it has none."""
    number, slash, of = text.partition("/")
    if not (slash and number.isascii() and number.isdigit() and of.isascii() and of.isdigit()):
        raise ArgumentError(f"--part takes N/OF, such as 2/8, not {text!r}")
    return int(number), int(of)
