"""Arguments and options that several commands take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import typer


def saving(kind: str, *others: str) -> Any:
    """The option --save for a result of this kind, or of one of the others. Raises StoreError before anything is run if
    the folder cannot be used."""

    def expect(folder: Path | None) -> Path | None:
        from hookline.store.folder import expect_folder, is_saved

        if folder is not None:
            expect_folder(folder, kind=next((other for other in others if is_saved(folder, kind=other)), kind))
        return folder

    told = f"Write the {kind} to this folder; hookline.load(DIR) reads it."
    return typer.Option(metavar="DIR", parser=Path, show_default=False, callback=expect, help=told)


def for_writing(path: Path | None) -> Path | None:
    """The file. Raises StoreError before anything is run if it cannot be written."""
    from hookline.store.file import expect_file

    if path is not None:
        expect_file(path)
    return path


MODEL = typer.Argument(
    metavar="MODEL",
    help="[bold]demo[/bold], [bold]package.module:name[/bold], [bold]path/file.py:name[/bold] (a module, or a class or "
    "function that returns one), or a folder that holds a transformers model.",
)
INPUTS = typer.Option(
    metavar="SPEC",
    show_default=False,
    help="The inputs: a description such as [bold]'input_ids=int64\\[1,16]<30522'[/bold] (quote it), "
    "a .safetensors, .npz, .json or .pt file, or module:name. "
    "Not needed for demo, nor for a transformers model that reads text.",
)
WHERE = typer.Option(
    metavar="GLOB",
    show_default=False,
    help="Only modules whose path matches: * is one name, ** any number. May be given several times.",
)
GRADS = typer.Option(
    "--grads/--no-grads", show_default=False, help="Run backward too (the default), or only the forward."
)
TRAIN = typer.Option(
    "--train/--eval", show_default=False, help="The model's mode; by default the mode it is loaded in."
)
PAGE = typer.Option(
    metavar="FILE",
    parser=Path,
    show_default=False,
    callback=for_writing,
    help="Write a page to this file: one HTML file to open in a browser.",
)
JSON = typer.Option("--json", help="Print one JSON document on stdout instead of the table.")

# Of commands that run a model over a data set


class Keep(StrEnum):
    """What is taken of a module."""

    output = "output"
    input = "input"


DATA = typer.Option(
    metavar="SPEC",
    help="[bold]demo[/bold], a file (.jsonl, .json, .csv, .txt, .npy, .safetensors), or [bold]module:name[/bold].",
)
POINTS = typer.Option(
    "--where", metavar="PATTERN", show_default=False, help="The modules, as in hookline.select; may be given again."
)
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
SEED = typer.Option(help="Of the sample.")
KEEP = typer.Option(help="What is taken of a module.")
BATCH = typer.Option(help="Examples in a batch.")
ID = typer.Option(metavar="FIELD", show_default=False, help="The field of the ids.")
SKIP = typer.Option("--skip", help="Leave out examples that fail or have NaN, and list them.")
