"""Totals as a table: a row for each point, and what is missing, was skipped or was rounded."""

from collections.abc import Iterator

from hookline.capturing.total import Total
from hookline.capturing.totals import Totals
from hookline.messages import counted, few, figure
from hookline.model.console import Group, Text
from hookline.report.fit import Fitted
from hookline.report.html import table_html

HEAD = ("point", "class", "rows", "shape", "mean", "std", "min", "max", "zeros")
SPARE = (1, 3, 8)  # that of least use first


def totals_table(totals: Totals) -> Group:
    """The totals as a rich table, a row for each point."""
    table = Fitted(HEAD, SPARE, left=(0, 1, 3))
    for total in totals:
        table.add_row(*total_cells(total))
    notes = (Text(note, style="dim") for note in totals_notes(totals))
    return Group(Text(totals.summary, style="bold"), table, *notes)


def totals_html(totals: Totals) -> str:
    """The totals as an HTML table, a row for each point."""
    rows = ((0, total_cells(total)) for total in totals)
    return table_html(totals.summary, HEAD, rows, totals_notes(totals))


def total_cells(total: Total) -> tuple[str, ...]:
    """One point as it stands in a table, over all its features."""
    figures = total.figures()
    own = (figure(figures[name]) for name in ("mean", "std", "min", "max"))
    zeros = f"{figures['zeros']:.0%}" if total.rows else ""
    shape = "x".join(map(str, total.shape)) or "scalar"
    return total.path or "(the model)", total.type, f"{total.rows:,}", shape, *own, zeros


def totals_notes(totals: Totals) -> Iterator[str]:
    """What else was measured, what is missing, was skipped or was rounded."""
    more = {
        "covariance": totals.measures.covariance,
        "quantiles": totals.measures.quantiles,
        f"top {totals.measures.top}": bool(totals.measures.top),
    }
    if any(more.values()):
        yield f"also: {', '.join(name for name, there in more.items() if there)}"
    if totals.missing:
        yield f"missing: {batches(totals.missing)} of the data"
    why = [f"{number} ({reason})" for cover in totals.covers for number, reason in sorted(cover.skipped.items())]
    if why:
        yield f"skipped: {counted(len(why), 'example')}: {few(why, most=3)}"
    rounded = [total.path or "(the model)" for total in totals if not total.exact]
    if rounded:
        yield f"rounded, so that the last bits may depend on the order of the batches: {few(rounded)}"


def batches(count: int) -> str:
    """A number of batches."""
    return f"{count:,} {'batch' if count == 1 else 'batches'}"
