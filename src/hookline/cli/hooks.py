"""The command `hookline hooks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from hookline.cli.options import JSON, MODEL, PAGE, saving
from hookline.cli.shared import only_result_on_stdout, show, status, write_page

HELP = (
    "Load a model and list every hook on it: PyTorch's, hookline's, and functions that libraries put in place of a "
    "forward, a class or a parameter.\n\n"
    "A row names the module, the kind of hook, its owner, its order, and where its function is defined. The hooks "
    "shown are those added while the model is built: by normalizations, by libraries, by the model's own code. "
    "hookline.hooks(model) lists them at any time."
)
EXAMPLES = """
[bold]Examples[/bold]

hookline hooks net.py:Net --save hooks/ --page hooks.html

hookline hooks ./my-bert --json | jq '.hooks[].owner'
"""


def hooks(
    model: Annotated[str, MODEL] = "demo",
    save: Annotated[Path | None, saving("hooks")] = None,
    page: Annotated[Path | None, PAGE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """List every hook on a model."""
    from hookline.tools.hooks import hooks as hooks_of

    with only_result_on_stdout(as_json), status(f"loading {model}"):
        from hookline.cli.sources import load_model

        found = hooks_of(load_model(model))
    show(found, as_json=as_json, save=save)
    write_page(found, page)
