"""Runs, findings and hooks as tables in the terminal."""

import io
import math
import os
from typing import Any

from hookline.checking.finding import Finding, Findings
from hookline.messages import few, figure, milliseconds
from hookline.model.console import Console, Group, Text
from hookline.record.record import CallRecord, Run, TensorInfo
from hookline.report.fit import Fitted
from hookline.report.plain import for_stdout
from hookline.tools.hooks import HookInfo, Hooks

MOST_ROWS = 400
SEEN = ("call", "class", "in", "out", "ms")
MEASURED = ("mean", "std", "absmax", "zeros")
GRADED = ("grad norm", "of input")
SPARE = ("std", "of input", "absmax", "zeros", "in", "mean", "grad norm", "class", "ms")  # the least useful first
MOST_FINDINGS = 100
FINDING_HEAD = ("", "module", "call", "what", "rule", "what to do")
COLORS = {"error": "bold red", "warning": "yellow", "note": "dim"}
HOOK_HEAD = ("module", "kind", "whose", "order", "function", "written", "added")
HOOK_SPARE = ("order", "added", "whose", "kind", "written")  # the least useful first


def run_table(run: Run, *, most: int = MOST_ROWS) -> Group:
    """The run as a rich table, a row for each call, indented by its depth; at most `most` rows, then how many are
    left."""
    head = run_head(run)
    spare = [head.index(name) for name in SPARE if name in head]
    table = Fitted(head, spare, left=range(4), wrapped=(1, 2, 3))
    for call in run.calls[:most]:
        name, *cells = run_cells(call, head)
        table.add_row("  " * call.depth + name, *cells, style="red" if call.error else None)

    left = len(run.calls) - most
    more = [f"... and {left:,} more calls; run.calls holds them all"] if left > 0 else []
    return Group(
        Text(run.summary, style="bold"), table, *(Text(note, style="dim") for note in (*more, *footnotes(run)))
    )


def run_head(run: Run) -> tuple[str, ...]:
    """The columns for which a run has values."""
    backed = any(info.grad is not None for call in run.calls for info in call.inputs)
    graded = backed or any(info.grad is not None for call in run.calls for info in call.outputs)
    measured = any(info.stats is not None for call in run.calls for info in call.outputs)
    return (*SEEN, *(MEASURED if measured else ()), *GRADED[: graded + backed])


def run_cells(call: CallRecord, head: tuple[str, ...]) -> list[str]:
    """The cells of one call for these columns."""
    outputs = call.outputs
    first = outputs[0] if outputs else None
    cells = [call_name(call), call.type, tensors_text(call.inputs)]
    cells += [f"raised {call.error}" if call.error else tensors_text(outputs), milliseconds(call.seconds)]
    if "mean" in head:
        stats = first.stats if first else None
        cells += [figure(getattr(stats, name)) if stats else "" for name in ("mean", "std", "absmax")]
        cells.append(f"{stats.zeros:.0%}" if stats and not math.isnan(stats.zeros) else "")
        if stats and (stats.nan or stats.inf):
            cells[3] += f" {stats.nan} NaN {stats.inf} Inf"
    if GRADED[0] in head:
        cells.append(_norm(first.grad if first else None))
    if GRADED[1] in head:
        cells.append(_norm(next((info.grad for info in call.inputs if info.grad), None)))
    return cells


def hooks_table(hooks: Hooks) -> Group:
    """The hooks of a model as a rich table, a row each."""
    table = Fitted(HOOK_HEAD, [HOOK_HEAD.index(name) for name in HOOK_SPARE], left=range(7), wrapped=(1, 4))
    for hook in hooks:
        table.add_row(*hook_cells(hook))
    return Group(Text(hooks.summary, style="bold"), *([table] if hooks else []))


def hook_cells(hook: HookInfo) -> tuple[str, ...]:
    """The cells of one hook."""
    order = "" if hook.order is None else f"{hook.order:g}"
    kind = " ".join((hook.kind, *(f"+{flag}" for flag in hook.flags)))
    return hook.path or "(the model)", kind, hook.owner, order, hook.name, _nearby(hook.defined), _nearby(hook.added)


def findings_table(findings: Findings, *, most: int = MOST_FINDINGS) -> Group:
    """The findings as a rich table, a row each, the worst first; at most `most` rows, then how many are left."""
    table = Fitted(FINDING_HEAD, [4, 2, 5, 0], left=range(6), wrapped=(3, 5))
    for finding in findings[:most]:
        severity, *cells = map(Text, finding_cells(finding))
        severity.stylize(COLORS[severity.plain])
        table.add_row(severity, *cells)
    left = len(findings) - most
    more = [Text(f"... and {left:,} more; findings.found holds them all", style="dim")] if left > 0 else []
    rows = [table] if len(findings) else [Text(line, style="dim") for line in findings.looked]
    return Group(Text(findings.summary, style="bold"), *rows, *more)


def finding_cells(finding: Finding) -> tuple[str, ...]:
    """The cells of one finding."""
    call = "" if finding.call is None else str(finding.call)
    where = finding.path or "(the model)"
    return finding.severity or "note", where, call, finding.text, finding.rule, finding.advice


def _nearby(place: str) -> str:
    """A place in a file, relative to site-packages or the current folder if it is below one of them."""
    _, packages, inside = place.rpartition(f"site-packages{os.sep}")
    return inside if packages else place.removeprefix(os.getcwd() + os.sep)


def footnotes(run: Run) -> list[str]:
    """The lines below the table: the modules that were never called."""
    missing = run.never_called
    if not missing:
        return []
    return [f"watched but never called: {few([path or '(the model)' for path in missing])}"]


def render(renderable: Any, *, width: int = 140) -> str:
    """The text that rich would print, without styles."""
    written = io.StringIO()
    Console(
        file=written,
        width=width,
        color_system=None,
        legacy_windows=False,
        force_jupyter=False,  # in a notebook rich would show it at once and return no text
        force_terminal=False,
    ).print(renderable)
    return for_stdout("\n".join(line.rstrip() for line in written.getvalue().splitlines()))


def call_name(call: CallRecord) -> str:
    """The name of a call in a tree: its path below that of its parent, and the number of the call."""
    path = call.path or call.type
    above = call.parent.path if call.parent is not None else ""
    if call.parent is not None and call.parent.method and not path.startswith(f"{above}."):
        above = above.removesuffix(f"{call.parent.method}()").removesuffix(".")
    name = path.removeprefix(f"{above}.") if above else path
    name = f"{name} #{call.index}" if call.index else name
    return f"{name} recomputed" if call.recompute else name


def tensors_text(infos: list[TensorInfo], *, most: int = 2) -> str:
    """Tensors as text: the shapes, and dtypes other than float32."""
    shown = [tensor_text(info) for info in infos[:most]]
    return " ".join(shown) + (f" +{len(infos) - most}" if len(infos) > most else "")


def tensor_text(info: TensorInfo) -> str:
    """A tensor as text: its shape, its dtype if not float32, and the placement of a distributed one."""
    shape = "x".join(map(str, info.shape)) or "scalar"
    dtype = () if info.dtype_name == "float32" else (info.dtype_name,)
    return " ".join((shape, *dtype, *(info.placement or ())))


def _norm(grad: TensorInfo | None) -> str:
    return figure(grad.stats.norm) if grad and grad.stats else "yes" if grad else ""
