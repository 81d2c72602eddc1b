"""The course of a training run as a table: a row for each series, with its course as a line of bars."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from hookline.messages import counted, figure
from hookline.model.console import Group, Text
from hookline.monitoring.monitored import Monitor, Series
from hookline.report.fit import Fitted
from hookline.report.html import table_html

HEAD = ("path", "of", "figure", "course", "smallest", "last", "largest")
SPARE = (4, 6)
BARS = "▁▂▃▄▅▆▇█"
WIDTH = 24
MOST = 60  # rows of a table


def monitor_table(monitor: Monitor) -> Group:
    """The series as a rich table, and the alerts."""
    table = Fitted(HEAD, SPARE, left=(0, 1, 2, 3))
    for series in shown(monitor):
        table.add_row(*cells(series))
    return Group(Text(monitor.summary, style="bold"), table, *(Text(note, style="dim") for note in notes(monitor)))


def monitor_html(monitor: Monitor) -> str:
    """The series as an HTML table, and the alerts."""
    return table_html(monitor.summary, HEAD, ((0, cells(series)) for series in shown(monitor)), notes(monitor))


def shown(monitor: Monitor) -> list[Series]:
    """The series that a table has room for: the first figure of each path first."""
    first = dict.fromkeys((path, of) for path, of, _ in monitor.names)
    figures = dict.fromkeys(name[2] for name in monitor.names)
    every = [*monitor]
    if len(every) <= MOST:
        return every
    main = next(iter(figures), "")
    own = [series for series in every if series.figure == main and (series.path, series.of) in first]
    return own[:MOST]


def notes(monitor: Monitor) -> Iterator[str]:
    """What the table leaves out, and the alerts."""
    left = len(monitor) - len(shown(monitor))
    if left > 0:
        yield f"{counted(left, 'row')} more: to_pandas() has all"
    for alert in monitor.alerts[-10:]:
        yield str(alert)


def cells(series: Series) -> tuple[str, ...]:
    """One series as it stands in a table."""
    values = series.mean.tolist()
    ends = (min(series.low.tolist(), default=math.nan), series.last, max(series.high.tolist(), default=math.nan))
    return series.path or "(the model)", series.of, series.figure, bars(values), *map(figure, ends)


def bars(values: Sequence[float], width: int = WIDTH) -> str:
    """Values as a line of bars of at most so many characters, from the smallest to the largest; ! is not finite.

    >>> bars([0.0, 1.0, 2.0, 7.0])
    '▁▂▃█'
    """
    if not values:
        return ""
    size = min(width, len(values))
    cut = [len(values) * place // size for place in range(size + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cut)]
    finite = [value for value in means if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    span = (high - low) or 1.0
    return "".join(BARS[round(7 * (value - low) / span)] if math.isfinite(value) else "!" for value in means)
