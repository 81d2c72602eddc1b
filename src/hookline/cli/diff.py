"""The command `hookline diff`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hookline.cli.options import INPUTS, JSON, PAGE, TRAIN, WHERE, saving
from hookline.cli.shared import (
    FOUND,
    expanded,
    load_subject,
    model_errors_reported,
    only_result_on_stdout,
    show,
    status,
    write_page,
)
from hookline.errors import CompareError

if TYPE_CHECKING:
    from torch.nn import Module

    from hookline.capturing.compared import CaptureDiff
    from hookline.cli.sources import Subject
    from hookline.compare.difference import Diff

HELP = (
    "Compare two models or two saved runs: the first call that differs, the culprit, and why; or two captures.\n\n"
    "A and B are two MODELs, called with the same inputs, or two folders with saved runs, such as those of "
    "`hookline watch --save`, or two folders with captures, whose rows are compared bit for bit. A is the reference. "
    "A row is one call that differs, indented below the call it ran in; "
    "calls that agree are folded. To find the culprit between saved runs, save them with "
    "`hookline watch --keep fingerprint`.\n\n"
    "Exit code 0: no call differs, even if weights do. 1: a call or a capture differs, or a model raised. "
    "2: wrong arguments, or nothing in A matches anything in B. 130: Ctrl-C."
)
EXAMPLES = """
[bold]Examples[/bold]

hookline diff before/ after/  [dim]# two saved runs[/dim]

hookline diff acts1/ acts2/  [dim]# two captures[/dim]

hookline diff net.py:Net port.py:Net --inputs net.py:batch --map 'layers.*=h.*'

hookline diff ./bert ./bert-port --inputs 'input_ids=int64\\[1,16]<30522' --json | jq .summary
"""
DIFF_GRADS = typer.Option("--grads/--no-grads", help="Compare gradients too; by default only the forward runs.")
MAP = typer.Option(
    "--map",
    metavar="FROM=TO",
    show_default=False,
    help="Modules FROM of A are TO in B, with all below them; stars stand for the same on both sides.",
)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="The reference: a MODEL, or the folder of a run or capture.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What is compared with it, of the same kind.")],
    inputs: Annotated[str | None, INPUTS] = None,
    where: Annotated[list[str] | None, WHERE] = None,
    mapped: Annotated[list[str] | None, MAP] = None,
    grads: Annotated[bool, DIFF_GRADS] = False,
    train: Annotated[bool | None, TRAIN] = None,
    save: Annotated[Path | None, saving("diff", "comparison")] = None,
    page: Annotated[Path | None, PAGE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Compare two models, two saved runs or two captures."""
    mapping = dict(map(_from_to, mapped or ()))
    with only_result_on_stdout(as_json):
        found: Diff | CaptureDiff
        if _is_capture(a) and _is_capture(b):
            if inputs or grads or train is not None or where or mapped:
                raise CompareError("captures are compared as they are: leave the options of models and runs out")
            found = _diff_of_saved(a, b)
        elif _is_run(a) and _is_run(b):
            if inputs or grads or train is not None:
                raise CompareError("saved runs are not run again: leave --inputs, --grads, --train and --eval out")
            found = _diff_of_saved(a, b, where=where or "**", mapping=mapping)
        else:
            found = _diff_of_models(*_two_models(a, b, inputs, train=train), where, mapping, grads=grads)
    show(found, as_json=as_json, save=save)
    write_page(found, page)
    raise typer.Exit(FOUND if found else 0)


def _from_to(text: str) -> tuple[str, str]:
    left, sign, right = text.partition("=")
    if not sign:
        raise CompareError(f"--map must be FROM=TO, such as 'layers.*=h.*', not {text!r}")
    return left.strip(), right.strip()


def _is_run(source: str) -> bool:
    return _is_file(expanded(source) / "run.json")


def _is_capture(source: str) -> bool:
    return _is_file(expanded(source) / "capture.json")


def _is_file(path: Path) -> bool:
    """Whether anything has that name: a broken file counts, so that loading it says what is wrong."""
    return os.path.lexists(path)


def _two_models(a: str, b: str, inputs: str | None, *, train: bool | None) -> tuple[Subject, Module]:
    """The first model with its inputs, and the second; CompareError if one of them is a saved run."""
    for one, other in ((a, b), (b, a)):
        for kind, is_one in (("saved run", _is_run), ("capture", _is_capture)):
            if is_one(one):
                many = f"{kind.removeprefix('saved ')}s"
                raise CompareError(f"{one} is a {kind} and {other} is not; give two {many}, or two models")
    first = load_subject(a, inputs, train=train)
    with status(f"loading {b}"):
        from hookline.cli.sources import load_model

        second = load_model(b)
    return first, second if train is None else second.train(train)


def _diff_of_saved(a: str, b: str, **options: Any) -> Any:
    from hookline.loading import load
    from hookline.tools.diff import diff as diffing

    return diffing(load(a), load(b), **options)


def _diff_of_models(
    first: Subject, second: Module, where: list[str] | None, mapping: dict[str, str], *, grads: bool
) -> Diff:
    from hookline.tools.diff import diff as diffing

    model, args, kwargs, loss = first.model, first.args, first.kwargs, first.own_loss
    with model_errors_reported():
        return diffing(model, second, *args, where=where or "**", mapping=mapping, grads=grads, loss=loss, **kwargs)
