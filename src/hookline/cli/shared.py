"""What commands share: how they load a model, print a result, save it, and report what went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hookline.errors import HooklineError, StoreError

if TYPE_CHECKING:
    from rich.console import Console

    from hookline.cli.sources import Subject
    from hookline.result import Result

MODEL_FAILED, FOUND, WRONG_INPUT, INTERRUPTED, PIPE_CLOSED = 1, 1, 2, 130, 141
PIPE_WIDTH = 140


def load_subject(model: str, inputs: str | None, *, train: bool | None) -> Subject:
    """The model that a MODEL names, with its inputs."""
    with status(f"loading {model}"):
        from hookline.cli import sources

        return sources.load(model, inputs, train=train)


@contextmanager
def status(doing: str) -> Iterator[None]:
    """A block with a spinner on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(doing)):
        yield


def expanded(path: str | Path) -> Path:
    """The whole path, with `~` expanded; StoreError if no file can have that name."""
    from hookline.store.opening import path_of

    try:
        return path_of(Path(path).expanduser())
    except RuntimeError as error:
        raise StoreError(f"cannot read {path}: {error}") from None


def only_result_on_stdout(wanted: bool) -> AbstractContextManager[Any]:
    """A block in which what the user's code prints goes to stderr, where stdout holds nothing but the result."""
    return redirect_stdout(sys.stderr) if wanted else nullcontext()


@contextmanager
def model_errors_reported() -> Iterator[None]:
    """A block in which an error of the model is printed on stderr and ends the command with exit code 1."""
    try:
        yield
    except HooklineError:
        raise
    except (Exception, SystemExit) as error:
        print_failure(error)
        raise typer.Exit(MODEL_FAILED) from None


def show(found: Result[Any], *, as_json: bool, save: Path | None = None) -> None:
    """Print a result on stdout, its table or its JSON, and save it where a folder is given."""
    if as_json:
        typer.echo(found.to_json())
    else:
        _console().print(found)
    if save:
        _save(found, save)


def _console() -> Console:
    """Stdout, as wide as the terminal or COLUMNS says."""
    from rich.console import Console

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if known else PIPE_WIDTH)


def _save(found: Result[Any], folder: Path) -> None:
    from hookline.store.folder import is_saved

    replaced = is_saved(folder, kind=found.noun)
    try:
        found.save(folder)
    except OSError as error:
        raise StoreError(f"cannot save to {folder}: {error}") from error
    print_note(f"saved to {folder}{f', replacing the {found.noun} saved there' if replaced else ''}")


def write_page(found: Result[Any], page: Path | None) -> None:
    """Write the page of a result, where one is asked for."""
    if page is None:
        return
    found.page(page)
    print_note(f"wrote {page}: open it in a browser")


def print_failure(error: BaseException) -> None:
    """What the model raised, on stderr, with its notes."""
    from hookline.cli.sources import explain

    print_error(f"the model raised {explain(error)}")
    for note in getattr(error, "__notes__", ()):
        for line in note.splitlines():
            print_note(line)


def print_error(message: str) -> None:
    """One line on stderr."""
    from hookline.report.plain import printable

    typer.echo(f"hookline: {printable(' '.join(message.split()))}", err=True)


def print_note(message: str) -> None:
    """One line on stderr about what was done."""
    from hookline.report.plain import printable

    typer.echo(printable(message), err=True)
