"""The page of totals: its points, how the values of each are distributed, which were skipped, and how it was made."""

from collections.abc import Iterator
from html import escape

from hookline.capturing.total import Total
from hookline.capturing.totals import Totals
from hookline.messages import counted, figure
from hookline.record.statistics import BINS
from hookline.report.html import LEFT, table_html
from hookline.report.page.bars import bars
from hookline.report.totals_table import HEAD, total_cells, totals_notes

MOST_SKIPPED = 1000
SHARES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


def totals_page(totals: Totals) -> str:
    """What stands in the page."""
    rows = ((0, total_cells(total)) for total in totals)
    parts = (
        table_html(totals.summary, HEAD, rows, totals_notes(totals)),
        *_points(totals),
        *_skipped(totals),
        _how(totals),
    )
    return "\n".join(parts)


def _points(totals: Totals) -> Iterator[str]:
    """Each point with a histogram of its values and some quantiles."""
    for total in totals:
        if total.sketch is not None and total.rows:
            yield f"<h2>{escape(total.path or '(the model)')}</h2>{_distribution(total)}"


def _distribution(total: Total) -> str:
    counts, edges = total.histogram(BINS)
    told = ", ".join(f"{share:.1%} {figure(total.quantile(share))}" for share in SHARES)
    drawn = bars(counts.tolist(), figure(float(edges[0])), figure(float(edges[-1])))
    return f"<p class='summary'>quantiles: {escape(told)}</p>{drawn}"


def _skipped(totals: Totals) -> Iterator[str]:
    skipped = [pair for cover in totals.covers for pair in sorted(cover.skipped.items())]
    if not skipped:
        return
    rows = ((0, (str(number), why)) for number, why in skipped[:MOST_SKIPPED])
    more = [f"... and {len(skipped) - MOST_SKIPPED:,} more"] if len(skipped) > MOST_SKIPPED else []
    yield table_html(f"{counted(len(skipped), 'example')} skipped", ("example", "why"), rows, more, style=LEFT)


def _how(totals: Totals) -> str:
    """What was asked for."""
    asked = {
        name: value for name, value in totals.signature.items() if name != "points" and value not in (None, "None")
    }
    return table_html("How it was made", ("what", "value"), ((0, (name, str(value))) for name, value in asked.items()))
