"""The command `hookline watch`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hookline.cli.options import GRADS, INPUTS, JSON, MODEL, PAGE, TRAIN, WHERE, saving
from hookline.cli.shared import (
    INTERRUPTED,
    MODEL_FAILED,
    load_subject,
    only_result_on_stdout,
    print_error,
    print_failure,
    show,
    write_page,
)
from hookline.errors import HooklineError, RecordError

if TYPE_CHECKING:
    from hookline.cli.sources import Subject
    from hookline.record.record import Run

HELP = (
    "Run a model once and show what every module received and returned, forward and backward.\n\n"
    "A row is one call of one module, indented below the call it ran in: shapes, milliseconds, statistics of the "
    "output, and the norm of the output's gradient. The loss of the demo is its cross entropy; for any other model it "
    "is the output's .loss, or the mean square of the output if there is none.\n\n"
    "Exit code 0: the model ran. 1: the model raised; the table shows the calls up to there. 2: wrong arguments. "
    "130: Ctrl-C."
)
EXAMPLES = """
[bold]Examples[/bold]

hookline watch  [dim]# the demo, forward and backward[/dim]

hookline watch demo --where 'attention.*' --train  [dim]# a part of it[/dim]

hookline watch torchvision.models:resnet18 --inputs 'float32\\[2,3,224,224]' --no-grads

hookline watch net.py:Net --inputs net.py:batch --save before/ --page before.html

hookline watch ./my-bert --inputs 'input_ids=int64\\[1,16]<30522' --json | jq '.calls | length'
"""
KEEPS = ("shape", "stats", "histogram", "tensor", "copy", "fingerprint")


def _known_keep(keep: str | None) -> str | None:
    if keep is not None and keep not in KEEPS:
        raise RecordError(f"--keep must be {', '.join(KEEPS[:-1])} or {KEEPS[-1]}, not {keep!r}")
    return keep


KEEP = typer.Option(
    metavar="KEEP",
    callback=_known_keep,
    show_default="stats; histogram with --page",
    help="What to keep of each output: shape, stats, histogram, tensor, copy; or fingerprint (of inputs too), "
    "for hookline diff.",
)


def watch(
    model: Annotated[str, MODEL] = "demo",
    inputs: Annotated[str | None, INPUTS] = None,
    where: Annotated[list[str] | None, WHERE] = None,
    keep: Annotated[str | None, KEEP] = None,
    grads: Annotated[bool, GRADS] = True,
    train: Annotated[bool | None, TRAIN] = None,
    save: Annotated[Path | None, saving("run")] = None,
    page: Annotated[Path | None, PAGE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Run a model once, and show what every module did."""
    from hookline.tools.watch import watch as watching

    with only_result_on_stdout(as_json):
        subject = load_subject(model, inputs, train=train)
        block = watching(subject.model, where or "**", **_kept(keep or ("histogram" if page else "stats")), grads=grads)
        run, code = _recorded(block, subject, grads=grads)

    show(run, as_json=as_json, save=save)
    write_page(run, page)
    raise typer.Exit(code)


def _kept(keep: str) -> dict[str, Any]:
    """The arguments of `watch` for a --keep."""
    if keep != "fingerprint":
        return {"keep": keep}
    from hookline.matching.fingerprint import fingerprint

    return {"keep": fingerprint, "inputs": fingerprint}


def _recorded(watching: AbstractContextManager[Run], subject: Subject, *, grads: bool) -> tuple[Run, int]:
    """The run of a subject while it is watched, and the exit code; an error is printed on stderr."""
    with watching as run:
        try:
            subject.forward_backward() if grads else subject.forward()
        except HooklineError:
            raise
        except KeyboardInterrupt:
            print_error(f"interrupted; recorded so far: {run.summary}")
            raise typer.Exit(INTERRUPTED) from None
        except (Exception, SystemExit) as error:
            print_failure(error)
            return run, MODEL_FAILED
    return run, 0
