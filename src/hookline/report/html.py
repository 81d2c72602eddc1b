"""A run, or the hooks of a model, as a fragment of HTML: what a notebook shows."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from hookline.report.text import (
    FINDING_HEAD,
    HOOK_HEAD,
    call_name,
    figure,
    finding_cells,
    headline,
    hook_cells,
    milliseconds,
    tensors_text,
)

if TYPE_CHECKING:
    from hookline.record.record import CallRecord, Run
    from hookline.tools.inventory import Hooks
    from hookline.tools.rules import Findings

MOST_ROWS = 1000
HEAD = ("call", "class", "in", "out", "ms", "mean", "std", "absmax", "grad norm")
NUMBER = "text-align:right;font-variant-numeric:tabular-nums"


def run_html(run: Run, *, most: int = MOST_ROWS) -> str:
    """The run as an HTML table, a row for each call, indented by the call it ran in; at most `most` rows."""
    head = "".join(f"<th style='text-align:left' scope='col'>{name}</th>" for name in HEAD)
    body = "".join(_row(call) for call in run.calls[:most])
    left = len(run.calls) - most
    more = f"<p>... and {left:,} more calls; run.calls holds them all</p>" if left > 0 else ""
    return (
        f"<div><p><strong>{escape(headline(run).plain)}</strong></p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}</div>"
    )


def hooks_html(hooks: Hooks) -> str:
    """The hooks of a model as an HTML table, a row each."""
    return _told(hooks.summary, HOOK_HEAD, [hook_cells(hook) for hook in hooks])


def findings_html(findings: Findings) -> str:
    """What a check found as an HTML table, a row each, the worst first."""
    return _told(findings.summary, FINDING_HEAD, [finding_cells(finding) for finding in findings])


def _told(summary: str, names: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A line, and below it a table of words where there are any."""
    head = "".join(f"<th style='text-align:left' scope='col'>{name}</th>" for name in names)
    cells = ("".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    return f"<div><p><strong>{escape(summary)}</strong></p>{table}</div>"


def _row(call: CallRecord) -> str:
    outputs = call.outputs
    first = outputs[0] if outputs else None
    stats = first.stats if first else None
    grad = first.grad.stats if first and first.grad else None
    name = f"<td style='text-align:left;padding-left:{call.depth}em'>{escape(call_name(call))}</td>"
    output = f"raised {call.error}" if call.error else tensors_text(outputs)
    words = [call.type, tensors_text(call.inputs), output]
    numbers = [
        milliseconds(call.seconds),
        *(figure(getattr(stats, key)) if stats else "" for key in ("mean", "std", "absmax")),
    ]
    numbers.append(figure(grad.norm) if grad else "")
    cells = "".join(f"<td style='text-align:left'>{escape(word)}</td>" for word in words)
    return f"<tr>{name}{cells}{''.join(f'<td style={NUMBER!r}>{escape(number)}</td>' for number in numbers)}</tr>"
