"""The page of a capture: its points, a histogram of each, what is missing, and which examples were skipped."""

from collections.abc import Iterator
from html import escape

from hookline.capturing.captured import Capture
from hookline.capturing.point import Point
from hookline.messages import counted, few, figure
from hookline.record.statistics import BINS, Pending, Stats, measure
from hookline.report.capture_table import HEAD, point_cells, ranges
from hookline.report.html import LEFT, table_html
from hookline.report.page.bars import bars

MOST_SKIPPED = 1000


def capture_page(capture: Capture) -> str:
    """What stands in the page."""
    rows = ((0, point_cells(capture, point)) for point in capture)
    parts = (
        table_html(capture.summary, HEAD, rows),
        *_points(capture),
        *_missing(capture),
        *_skipped(capture),
        _how(capture),
    )
    return "\n".join(parts)


def _points(capture: Capture) -> Iterator[str]:
    """Each point with a histogram of a sample of its values."""
    for point in capture:
        if point.rows:
            yield f"<h2>{escape(point.path or '(the model)')}</h2>{_histogram(point)}"


def _histogram(point: Point) -> str:
    values = point.sample()
    stats = measure(values.float() if values.is_floating_point() else values, Pending(), bins=BINS)
    if not isinstance(stats, Stats):
        return ""
    told = f"a sample of {values.numel():,} values: mean {figure(stats.mean)}, std {figure(stats.std)}"
    drawn = "" if stats.histogram is None else bars(stats.histogram, figure(stats.min), figure(stats.max))
    return f"<p class='summary'>{escape(told)}, {stats.zeros:.0%} zeros</p>{drawn}"


def _missing(capture: Capture) -> Iterator[str]:
    if capture.missing:
        units = few(ranges(capture.missing), most=50)
        yield f"<h2>Missing units</h2><p>{escape(units)}, of {capture.unit} examples each; call capture again</p>"


def _skipped(capture: Capture) -> Iterator[str]:
    skipped = sorted(capture.skipped.items())
    if not skipped:
        return
    ids = capture.ids_by_number()
    rows = ((0, (str(number), str(ids.get(number, "")), why)) for number, why in skipped[:MOST_SKIPPED])
    more = [f"... and {len(skipped) - MOST_SKIPPED:,} more"] if len(skipped) > MOST_SKIPPED else []
    head = ("example", "id", "why")
    yield table_html(f"{counted(len(skipped), 'example')} skipped", head, rows, more, style=LEFT)


def _how(capture: Capture) -> str:
    """What was captured, and with which releases."""
    asked = {
        name: value for name, value in capture.signature.items() if name != "points" and value not in (None, "None")
    }
    rows = ((0, (name, str(value))) for name, value in (*asked.items(), *capture.versions.items()))
    return table_html("How it was made", ("what", "value"), rows, style=LEFT)
