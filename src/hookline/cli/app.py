"""The command line: puts the commands together, and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hookline.cli import capture, check, diff, hooks, monitor, profile, report, totals, watch
from hookline.cli.shared import INTERRUPTED, PIPE_CLOSED, WRONG_INPUT, print_error
from hookline.errors import HooklineError

TRACEBACK = "HOOKLINE_TRACEBACK"  # an environment variable


class Commands(TyperGroup):
    """All commands, with one place for their errors."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an exception becomes one line on stderr and an exit code that no result has."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except HooklineError as error:
            print_error(str(error))
            raise typer.Exit(WRONG_INPUT) from None
        except KeyboardInterrupt:
            print_error("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads what is left
            raise typer.Exit(PIPE_CLOSED) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] in ("typer", "click") or os.environ.get(TRACEBACK):
                raise
            print_error(f"{type(error).__name__}: {error} (not expected here; {TRACEBACK}=1 shows where it was raised)")
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


app.command(help=watch.HELP, epilog=watch.EXAMPLES)(watch.watch)
app.command(help=check.HELP, epilog=check.EXAMPLES)(check.check)
app.command(help=capture.HELP, epilog=capture.EXAMPLES)(capture.capture)
app.command(help=totals.HELP, epilog=totals.EXAMPLES)(totals.totals)
app.command(help=diff.HELP, epilog=diff.EXAMPLES)(diff.diff)
app.command(help=hooks.HELP, epilog=hooks.EXAMPLES)(hooks.hooks)
app.command(help=profile.HELP, epilog=profile.EXAMPLES)(profile.profile)
app.command(help=monitor.HELP, epilog=monitor.EXAMPLES)(monitor.monitor)
app.command(help=report.HELP, epilog=report.EXAMPLES)(report.report)
