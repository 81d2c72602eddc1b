"""The command `hookline capture`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from hookline.cli.options import JSON, MODEL, PAGE
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


class Keep(StrEnum):
    """What is captured of a module."""

    output = "output"
    input = "input"


class DType(StrEnum):
    """The dtype on disk."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    float32 = "float32"


DATA = typer.Option(
    metavar="SPEC",
    help="[bold]demo[/bold], a file (.jsonl, .json, .csv, .txt, .npy, .safetensors), or [bold]module:name[/bold].",
)
WHERE = typer.Option(
    "--where", metavar="PATTERN", show_default=False, help="The modules, as in hookline.select; may be given again."
)
TO = typer.Option("--to", metavar="DIR", show_default=False, help="The folder of the capture.")
CALL = typer.Option(
    metavar="FUNCTION",
    show_default=False,
    help="module:name of a function that makes the model's inputs of a batch. By default the tokenizer in the model's "
    "folder reads --text; else examples are collated.",
)
TEXT = typer.Option(metavar="FIELD", help="The field that the tokenizer reads.")
MASK = typer.Option(
    metavar="ARGUMENT",
    show_default=False,
    help="Each position is a row; only those count where this argument of the model is not 0.",
)
POSITIONS = typer.Option(
    "--position", metavar="N", show_default=False, help="Only these of the positions: -1 is the last. May be repeated."
)
SAMPLE = typer.Option(metavar="N", show_default=False, help="At most so many positions of an example, at random.")


def capture(
    to: Annotated[Path, TO],
    where: Annotated[list[str], WHERE],
    model: Annotated[str, MODEL] = "demo",
    data: Annotated[str, DATA] = "demo",
    call: Annotated[str | None, CALL] = None,
    text: Annotated[str, TEXT] = "text",
    mask: Annotated[str | None, MASK] = None,
    position: Annotated[list[int] | None, POSITIONS] = None,
    sample: Annotated[int | None, SAMPLE] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    keep: Annotated[Keep, typer.Option(help="What is captured of a module.")] = Keep.output,
    dtype: Annotated[DType | None, typer.Option(show_default=False, help="On disk; by default as it is.")] = None,
    batch: Annotated[int, typer.Option(help="Examples in a batch.")] = 32,
    unit: Annotated[int | None, typer.Option(show_default="8 batches", help="Examples in a unit of work.")] = None,
    id: Annotated[str | None, typer.Option(metavar="FIELD", show_default=False, help="The field of the ids.")] = None,
    skip: Annotated[
        bool, typer.Option("--skip", help="Leave out examples that fail or have NaN, and list them.")
    ] = False,
    page: Annotated[Path | None, PAGE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write the activations of a data set to a folder."""
    with only_result_on_stdout(as_json):
        with status(f"loading {model}"):
            import torch

            from hookline.capturing.rows import rows
            from hookline.cli.data import load_data, load_function, tokenizing
            from hookline.cli.sources import load_model
            from hookline.tools.capture import capture as capturing

            loaded, examples = load_model(model).eval(), load_data(data)
            make: Any = tokenizing(model, text) if call is None else load_function(call, "--call")
        by_position = mask is not None or position or sample is not None
        with model_errors_reported():
            found = capturing(
                loaded,
                examples,
                where,
                to=to,
                call=make,
                rows=rows(mask=mask, positions=position or None, sample=sample, seed=seed) if by_position else None,
                keep=keep.value,
                dtype=None if dtype is None else getattr(torch, dtype.value),
                batch=batch,
                unit=unit,
                id=id,
                errors="skip" if skip else "raise",
            )
    show(found, as_json=as_json)
    write_page(found, page)
