"""The command `hookline capture`."""

from __future__ import annotations

from enum import StrEnum
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
)
from hookline.cli.shared import model_errors_reported, only_result_on_stdout, show, status, write_page

HELP = (
    "Run a model over a data set and write the activations of some modules to a folder, each exactly once.\n\n"
    "Stopped or killed, the same command goes on where it stopped. Several processes share the work, as under "
    "torchrun or in a Slurm array. In Python, hookline.open(DIR) reads the folder.\n\n"
    "Exit code 0: every unit of work is there. 1: the model raised. 2: wrong arguments, or the folder holds another "
    "capture. 130: Ctrl-C."
)
EXAMPLES = """
[bold]Examples[/bold]

hookline capture --where stem --to acts  [dim]# the demo[/dim]

hookline capture ./my-bert --data texts.jsonl --where 'encoder.layer.*' --mask attention_mask --to acts

torchrun --nproc-per-node 8 -m hookline capture net.py:Net --data data.py:examples --where trunk --to acts
"""


class DType(StrEnum):
    """The dtype on disk."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


TO = typer.Option("--to", metavar="DIR", show_default=False, help="The folder of the capture.")


def capture(
    to: Annotated[Path, TO],
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
    dtype: Annotated[DType | None, typer.Option(show_default=False, help="On disk; by default as it is.")] = None,
    batch: Annotated[int, BATCH] = 32,
    unit: Annotated[int | None, typer.Option(show_default="8 batches", help="Examples in a unit of work.")] = None,
    id: Annotated[str | None, ID] = None,
    skip: Annotated[bool, SKIP] = False,
    page: Annotated[Path | None, PAGE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write the activations of a data set to a folder."""
    with only_result_on_stdout(as_json):
        with status(f"loading {model}"):
            import torch

            from hookline.cli.data import load_task, rows_of
            from hookline.tools.capture import capture as capturing

            task = load_task(model, data, call, text)
        with model_errors_reported():
            found = capturing(
                task.model,
                task.data,
                where,
                to=to,
                call=task.call,
                rows=rows_of(mask, position, sample, seed),
                keep=keep.value,
                dtype=None if dtype is None else getattr(torch, dtype.value),
                batch=batch,
                unit=unit,
                id=id,
                errors="skip" if skip else "raise",
            )
    show(found, as_json=as_json)
    write_page(found, page)
