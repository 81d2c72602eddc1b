"""The command line. Each command is a few lines over a tool; what is wrong with its input is told in one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hookline.errors import CompareError, HooklineError, RecordError, StoreError

if TYPE_CHECKING:
    from rich.console import Console
    from torch.nn import Module

    from hookline.cli.sources import Subject
    from hookline.compare.difference import Diff
    from hookline.record.record import Run
    from hookline.result import Result

MODEL_FAILED, FOUND, WRONG_INPUT, INTERRUPTED, PIPE_CLOSED = 1, 1, 2, 130, 141
TRACEBACK = "HOOKLINE_TRACEBACK"  # an environment variable
PIPE_WIDTH = 140
KEEPS = ("shape", "stats", "histogram", "tensor", "copy", "fingerprint")


class Commands(TyperGroup):
    """The commands, in one place for the errors of all of them."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; whatever is raised becomes a line on stderr and an exit code that no result has."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except HooklineError as error:
            _tell(str(error))
            raise typer.Exit(WRONG_INPUT) from None
        except KeyboardInterrupt:
            _tell("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads what is left
            raise typer.Exit(PIPE_CLOSED) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] in ("typer", "click") or os.environ.get(TRACEBACK):
                raise
            _tell(f"{type(error).__name__}: {error} (not expected here; {TRACEBACK}=1 shows where it was raised)")
            raise typer.Exit(WRONG_INPUT) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The `hookline` command."""
    from hookline.report.plain import show_all

    show_all(sys.stdout)
    app(prog_name="hookline")


# What commands take


def _known_keep(keep: str | None) -> str | None:
    if keep is not None and keep not in KEEPS:
        raise RecordError(f"--keep {keep!r} is not known; it is {', '.join(KEEPS[:-1])} or {KEEPS[-1]}")
    return keep


def _to_save(kind: str) -> Any:
    """The option that names the folder for a result of this kind; StoreError, before anything is run, where nothing can
    be saved to it."""

    def expect(folder: Path | None) -> Path | None:
        from hookline.store.folder import expect_folder

        if folder is not None:
            expect_folder(folder, kind=kind)
        return folder

    told = f"Write the {kind} to this folder; hookline.load(DIR) reads it."
    return typer.Option(metavar="DIR", parser=Path, show_default=False, callback=expect, help=told)


def _for_writing(path: Path | None) -> Path | None:
    """The file; StoreError, before anything is run, where it cannot be written."""
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
KEEP = typer.Option(
    metavar="KEEP",
    callback=_known_keep,
    show_default="stats; histogram with --page",
    help="What to keep of each output: shape, stats, histogram, tensor, copy; or fingerprint (of inputs too), "
    "for hookline diff.",
)
GRADS = typer.Option(
    "--grads/--no-grads", show_default=False, help="Run backward too (the default), or only the forward."
)
TRAIN = typer.Option(
    "--train/--eval", show_default=False, help="The model's mode; by default the mode it is loaded in."
)
DIFF_GRADS = typer.Option("--grads/--no-grads", help="Compare gradients too; by default only the forward runs.")
SAVE_DIFF = _to_save("diff")
SAVE = _to_save("run")
PAGE = typer.Option(
    metavar="FILE",
    parser=Path,
    show_default=False,
    callback=_for_writing,
    help="Write a page to this file: one HTML file to open in a browser.",
)
TRACE = typer.Option(
    metavar="FILE",
    parser=Path,
    show_default=False,
    callback=_for_writing,
    help="Write the last step as a trace for Perfetto.",
)
JSON = typer.Option("--json", help="Print one JSON document on stdout instead of the table.")


def _version(wanted: bool) -> None:
    if wanted:
        from hookline import __version__

        typer.echo(f"hookline {__version__}")
        raise typer.Exit


@app.callback()
def hookline(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See what every module in a PyTorch model does, without changing a bit of it.

    hookline COMMAND --help says more about a command, with examples.
    """


WATCH_HELP = (
    "Run a model once and show what every module received and returned, forward and backward.\n\n"
    "A row is one call of one module, indented below the call it ran in: shapes, milliseconds, statistics of the "
    "output, and the norm of the output's gradient. The loss of the demo is its cross entropy; for any other model it "
    "is the output's .loss, or the mean square of the output if there is none.\n\n"
    "Exit code 0: the model ran. 1: the model raised; the table shows the calls up to there. 2: wrong arguments. "
    "130: Ctrl-C."
)
WATCH_EXAMPLES = """
[bold]Examples[/bold]

hookline watch  [dim]# the demo, forward and backward[/dim]

hookline watch demo --where 'attention.*' --train  [dim]# a part of it[/dim]

hookline watch torchvision.models:resnet18 --inputs 'float32\\[2,3,224,224]' --no-grads

hookline watch net.py:Net --inputs net.py:batch --save before/ --page before.html

hookline watch ./my-bert --inputs 'input_ids=int64\\[1,16]<30522' --json | jq '.calls | length'
"""


@app.command(help=WATCH_HELP, epilog=WATCH_EXAMPLES)
def watch(
    model: Annotated[str, MODEL] = "demo",
    inputs: Annotated[str | None, INPUTS] = None,
    where: Annotated[list[str] | None, WHERE] = None,
    keep: Annotated[str | None, KEEP] = None,
    grads: Annotated[bool, GRADS] = True,
    train: Annotated[bool | None, TRAIN] = None,
    save: Annotated[Path | None, SAVE] = None,
    page: Annotated[Path | None, PAGE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Run a model once, and show what every module did."""
    from hookline.tools.watch import watch as watching

    with _only_result_on_stdout(as_json):
        subject = _load(model, inputs, train=train)
        block = watching(subject.model, where or "**", **_kept(keep or ("histogram" if page else "stats")), grads=grads)
        run, code = _recorded(block, subject, grads=grads)

    _print(run, as_json=as_json)
    if save:
        _save(run, save)
    _write_page(run, page)
    raise typer.Exit(code)


CHECK_HELP = (
    "Run a model once, forward and backward, and report what is wrong, where it began, and what to do.\n\n"
    "A row is one finding, the worst first. An error is broken numbers or a part that cannot be trained, a warning is "
    "very likely a mistake, a note is worth knowing. The loss is that of hookline watch. To check training steps, put "
    "`with hookline.check(model) as findings:` around them.\n\n"
    "Exit code 0: nothing above a note. 1: something was found, or the model raised. 2: wrong arguments. 130: Ctrl-C."
)
CHECK_EXAMPLES = """
[bold]Examples[/bold]

hookline check  [dim]# the demo[/dim]

hookline check net.py:Net --inputs net.py:batch --train

hookline check ./my-bert --inputs 'input_ids=int64\\[1,16]<30522' --json | jq '.findings[].path'
"""


@app.command(help=CHECK_HELP, epilog=CHECK_EXAMPLES)
def check(
    model: Annotated[str, MODEL] = "demo",
    inputs: Annotated[str | None, INPUTS] = None,
    where: Annotated[list[str] | None, WHERE] = None,
    train: Annotated[bool | None, TRAIN] = None,
    page: Annotated[Path | None, PAGE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Run a model once and report what is wrong with it."""
    from hookline.tools.check import check as checking

    with _only_result_on_stdout(as_json):
        subject = _load(model, inputs, train=train)
        findings = checking(subject.model, *subject.args, loss=subject.own_loss, where=where or "**", **subject.kwargs)
    if as_json:
        typer.echo(findings.to_json())
    else:
        _console().print(findings)
    _write_page(findings, page)
    if isinstance(findings.error, Exception):
        _tell_failure(findings.error)
    raise typer.Exit(FOUND if findings else 0)


DIFF_HELP = (
    "Compare two models or two saved runs: the first call that differs, the culprit, and why.\n\n"
    "A and B are two MODELs, called with the same inputs, or two folders with saved runs, such as those of "
    "`hookline watch --save`. A is the reference. A row is one call that differs, indented below the call it ran in; "
    "calls that agree are folded. To find the culprit between saved runs, save them with "
    "`hookline watch --keep fingerprint`.\n\n"
    "Exit code 0: no call differs, even if weights do. 1: a call differs, or a model raised. 2: wrong arguments, or "
    "nothing in A matches anything in B. 130: Ctrl-C."
)
DIFF_EXAMPLES = """
[bold]Examples[/bold]

hookline diff before/ after/  [dim]# two saved runs[/dim]

hookline diff net.py:Net port.py:Net --inputs net.py:batch --map 'layers.*=h.*'

hookline diff ./bert ./bert-port --inputs 'input_ids=int64\\[1,16]<30522' --json | jq .summary
"""
MAP = typer.Option(
    "--map",
    metavar="FROM=TO",
    show_default=False,
    help="Modules FROM of A are TO in B, with all below them; stars stand for the same on both sides.",
)


@app.command(help=DIFF_HELP, epilog=DIFF_EXAMPLES)
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="The reference: a MODEL, or the folder of a saved run.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What is compared with it, of the same kind.")],
    inputs: Annotated[str | None, INPUTS] = None,
    where: Annotated[list[str] | None, WHERE] = None,
    mapped: Annotated[list[str] | None, MAP] = None,
    grads: Annotated[bool, DIFF_GRADS] = False,
    train: Annotated[bool | None, TRAIN] = None,
    save: Annotated[Path | None, SAVE_DIFF] = None,
    page: Annotated[Path | None, PAGE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Compare two models or two saved runs."""
    mapping = dict(map(_from_to, mapped or ()))
    with _only_result_on_stdout(as_json):
        if _is_run(a) and _is_run(b):
            if inputs or grads or train is not None:
                raise CompareError("saved runs have been made already: leave --inputs, --grads, --train and --eval out")
            found = _diff_of_runs(a, b, where, mapping)
        else:
            found = _diff_of_models(*_two_models(a, b, inputs, train=train), where, mapping, grads=grads)
    if as_json:
        typer.echo(found.to_json())
    else:
        _console().print(found)
    if save:
        _save(found, save)
    _write_page(found, page)
    raise typer.Exit(FOUND if found else 0)


HOOKS_HELP = (
    "Load a model and list every hook on it: PyTorch's, hookline's, and functions that libraries put in place of a "
    "forward, a class or a parameter.\n\n"
    "A row names the module, the kind of hook, its owner, its order, and where its function is defined. The hooks "
    "shown are those added while the model is built: by normalizations, by libraries, by the model's own code. "
    "hookline.hooks(model) lists them at any time."
)
HOOKS_EXAMPLES = """
[bold]Examples[/bold]

hookline hooks net.py:Net

hookline hooks ./my-bert --json | jq '.hooks[].owner'
"""


@app.command(help=HOOKS_HELP, epilog=HOOKS_EXAMPLES)
def hooks(
    model: Annotated[str, MODEL] = "demo",
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """List every hook on a model."""
    from hookline.tools.hooks import hooks as hooks_of

    with _only_result_on_stdout(as_json), _status(f"loading {model}"):
        from hookline.cli.sources import load_model

        found = hooks_of(load_model(model))
    if as_json:
        typer.echo(found.to_json())
    else:
        _console().print(found)


PROFILE_HELP = (
    "Run a model a few times and show what every module costs: total and self time of forward and backward in "
    "milliseconds, FLOPs, bytes saved for backward, parameters.\n\n"
    "A bar is the module's share of the self time; all bars add up to the whole. With --meta nothing is computed and "
    "no weights are loaded: FLOPs and bytes only."
)
PROFILE_EXAMPLES = """
[bold]Examples[/bold]

hookline profile  [dim]# the demo[/dim]

hookline profile ./my-bert --inputs 'input_ids=int64\\[8,128]<30522' --repeat 20

hookline profile net.py:Net --inputs net.py:batch --trace trace.json  [dim]# open it at ui.perfetto.dev[/dim]

hookline profile net.py:Net --inputs 'float32\\[2,3,224,224]' --meta --json | jq '.costs[0].flops'
"""


@app.command(help=PROFILE_HELP, epilog=PROFILE_EXAMPLES)
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
    page: Annotated[Path | None, PAGE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Show what every module of a model costs."""
    from hookline.tools.profile import profile as profiling

    if meta and trace:
        raise RecordError("--trace needs times, which --meta does not take: leave one of them out")
    with _only_result_on_stdout(as_json):
        subject = _load(model, inputs, train=train)
        options: dict[str, Any] = {
            "loss": subject.loss,
            "backward": grads,
            "repeat": repeat,
            "warmup": warmup,
            "meta": meta,
        }
        with _status("profiling"), _model_errors_told():
            found = profiling(subject.model, *subject.args, where=where or "**", **options, **subject.kwargs)
    if as_json:
        if found.uncounted:
            _tell(found.why_uncounted)
        typer.echo(found.to_json())
    else:
        _console().print(found)
    if trace:
        found.perfetto(trace)
        _note(f"wrote {trace}")
    _write_page(found, page)


REPORT_HELP = (
    "Write the page of a saved result, such as a run or a diff: one HTML file with the tree of calls, their figures, "
    "pictures and search.\n\n"
    "Without --page it is written next to the folder: the page of `before/` is `before.html`."
)
REPORT_EXAMPLES = """
[bold]Examples[/bold]

hookline report before/  [dim]# writes before.html[/dim]

hookline report port-diff/ --page port.html
"""


@app.command(help=REPORT_HELP, epilog=REPORT_EXAMPLES)
def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", parser=Path, help="What hookline saved: a run, a diff, another result."),
    ],
    page: Annotated[Path | None, PAGE] = None,
) -> None:
    """Write the page of what was saved."""
    from hookline.loading import load

    saved = _expanded(folder)
    found = load(saved if saved.is_dir() else folder)
    _write_page(found, page or saved.with_name(f"{saved.name or 'report'}.html"))


# What they share


def _tell(message: str) -> None:
    """One line on stderr."""
    from hookline.report.plain import printable

    typer.echo(f"hookline: {printable(' '.join(message.split()))}", err=True)


def _note(message: str) -> None:
    """One line on stderr about what was done."""
    from hookline.report.plain import printable

    typer.echo(printable(message), err=True)


def _only_result_on_stdout(wanted: bool) -> AbstractContextManager[Any]:
    """A block in which what the user's code prints goes to stderr, where stdout is to hold nothing but the result."""
    return redirect_stdout(sys.stderr) if wanted else nullcontext()


def _load(model: str, inputs: str | None, *, train: bool | None) -> Subject:
    with _status(f"loading {model}"):
        from hookline.cli import sources

        return sources.load(model, inputs, train=train)


def _kept(keep: str) -> dict[str, Any]:
    """What `watch` is to keep."""
    if keep != "fingerprint":
        return {"keep": keep}
    from hookline.matching.fingerprint import fingerprint

    return {"keep": fingerprint, "inputs": fingerprint}


def _is_run(source: str) -> bool:
    return _is_file(_expanded(source) / "run.json")


def _expanded(path: str | Path) -> Path:
    """The whole path, `~` put in; StoreError where no file can have it as a name."""
    from hookline.store.opening import path_of

    try:
        return path_of(Path(path).expanduser())
    except RuntimeError as error:
        raise StoreError(f"cannot read {path}: {error}") from None


def _is_file(path: Path) -> bool:
    """Whether there is something of that name that a saved result may begin with; what it is, loading tells."""
    return os.path.lexists(path)


def _two_models(a: str, b: str, inputs: str | None, *, train: bool | None) -> tuple[Subject, Module]:
    """The first with its inputs, and the second; CompareError where one of them is a saved run."""
    for one, other in ((a, b), (b, a)):
        if _is_run(one):
            raise CompareError(f"{one} is a saved run and {other} is none; give two runs, or two models")
    first = _load(a, inputs, train=train)
    with _status(f"loading {b}"):
        from hookline.cli.sources import load_model

        second = load_model(b)
    return first, second if train is None else second.train(train)


def _diff_of_runs(a: str, b: str, where: list[str] | None, mapping: dict[str, str]) -> Diff:
    from hookline.loading import load
    from hookline.tools.diff import diff as diffing

    return diffing(load(a), load(b), where=where or "**", mapping=mapping)


def _diff_of_models(
    first: Subject, second: Module, where: list[str] | None, mapping: dict[str, str], *, grads: bool
) -> Diff:
    from hookline.tools.diff import diff as diffing

    model, args, kwargs, loss = first.model, first.args, first.kwargs, first.own_loss
    try:
        return diffing(model, second, *args, where=where or "**", mapping=mapping, grads=grads, loss=loss, **kwargs)
    except HooklineError:
        raise
    except (Exception, SystemExit) as error:
        _tell_failure(error)
        raise typer.Exit(MODEL_FAILED) from None


def _from_to(text: str) -> tuple[str, str]:
    left, sign, right = text.partition("=")
    if not sign:
        raise CompareError(f"--map {text!r} is not FROM=TO, such as 'layers.*=h.*'")
    return left.strip(), right.strip()


@contextmanager
def _status(doing: str) -> Iterator[None]:
    """A block with a spinner on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(doing)):
        yield


def _recorded(watching: AbstractContextManager[Run], subject: Subject, *, grads: bool) -> tuple[Run, int]:
    """The run of a subject while it is watched, and the exit code; what went wrong is told on stderr."""
    with watching as run:
        try:
            subject.forward_backward() if grads else subject.forward()
        except HooklineError:
            raise
        except KeyboardInterrupt:
            _tell(f"interrupted; recorded so far: {run.summary}")
            raise typer.Exit(INTERRUPTED) from None
        except (Exception, SystemExit) as error:
            _tell_failure(error)
            return run, MODEL_FAILED
    return run, 0


@contextmanager
def _model_errors_told() -> Iterator[None]:
    """A block in which what the model raises is told on stderr, and ends the command."""
    try:
        yield
    except HooklineError:
        raise
    except (Exception, SystemExit) as error:
        _tell_failure(error)
        raise typer.Exit(MODEL_FAILED) from None


def _tell_failure(error: BaseException) -> None:
    from hookline.cli.sources import explain

    _tell(f"the model raised {explain(error)}")
    for note in getattr(error, "__notes__", ()):
        for line in note.splitlines():
            _note(line)


def _print(run: Run, *, as_json: bool) -> None:
    """The run on stdout: its table, or its document."""
    if as_json:
        typer.echo(run.to_json())
        return
    _console().print(run)


def _console() -> Console:
    """Stdout, as wide as the terminal or COLUMNS says."""
    from rich.console import Console

    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if known else PIPE_WIDTH)


def _write_page(found: Result[Any], page: Path | None) -> None:
    if page is None:
        return
    found.page(page)
    _note(f"wrote {page}: open it in a browser")


def _save(found: Result[Any], folder: Path) -> None:
    from hookline.store.folder import is_saved

    replaced = is_saved(folder, kind=found.noun)
    try:
        found.save(folder)
    except OSError as error:
        raise StoreError(f"cannot save to {folder}: {error}") from error
    _note(f"saved to {folder}{f', replacing the {found.noun} that was there' if replaced else ''}")
