"""A result as a plain HTML table, for pages without JavaScript and for notebooks."""

from collections.abc import Iterable, Sequence
from html import escape

from hookline.checking.finding import Findings
from hookline.record.record import Run
from hookline.report.text import (
    FINDING_HEAD,
    HOOK_HEAD,
    finding_cells,
    footnotes,
    hook_cells,
    run_cells,
    run_head,
)
from hookline.tools.hooks import Hooks

LEFT = " style='text-align:left'"


def run_html(run: Run) -> str:
    """The run as an HTML table, a row for each call, indented by its depth."""
    head = run_head(run)
    rows = ((call.depth, run_cells(call, head)) for call in run.calls)
    return table_html(run.summary, head, rows, footnotes(run))


def findings_html(findings: Findings) -> str:
    """The findings as an HTML table, a row each, the worst first."""
    return table_html(findings.summary, FINDING_HEAD, ((0, finding_cells(finding)) for finding in findings))


def hooks_html(hooks: Hooks) -> str:
    """The hooks of a model as an HTML table, a row each."""
    return table_html(hooks.summary, HOOK_HEAD, ((0, hook_cells(hook)) for hook in hooks), style=LEFT)


def table_html(
    summary: str,
    head: Sequence[str],
    rows: Iterable[tuple[int, Sequence[str]]],
    notes: Iterable[str] = (),
    *,
    style: str = "",
) -> str:
    """A summary, a table and notes below it. Each row comes with the depth by which its first cell is indented; `style`
    is for every cell."""
    body = "".join(_row(depth, cells, style) for depth, cells in rows)
    top = "".join(f"<th scope='col'{style}>{escape(name)}</th>" for name in head)
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>" if body else ""
    below = "".join(f"<p>{escape(note)}</p>" for note in notes)
    return f"<div><p><strong>{'<br>'.join(map(escape, summary.splitlines()))}</strong></p>{table}{below}</div>"


def _row(depth: int, cells: Sequence[str], style: str) -> str:
    first, *others = map(escape, cells)
    indent = f" style='padding-left:{depth}em'" if depth else style
    return f"<tr><td{indent}>{first}</td>{''.join(f'<td{style}>{cell}</td>' for cell in others)}</tr>"
