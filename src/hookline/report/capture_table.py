"""A capture as a table: a row for each point, and what is missing or was skipped."""

from collections.abc import Iterator, Sequence

from hookline.capturing.captured import Capture
from hookline.capturing.point import Point
from hookline.messages import counted, dtype_name, engineering, few
from hookline.model.console import Group, Text
from hookline.report.fit import Fitted
from hookline.report.html import table_html

HEAD = ("point", "class", "examples", "rows", "shape", "dtype", "size")
SPARE = (1, 5, 2, 4)  # that of least use first


def capture_table(capture: Capture) -> Group:
    """The capture as a rich table, a row for each point."""
    table = Fitted(HEAD, SPARE, left=(0, 1, 4, 5))
    for point in capture:
        table.add_row(*point_cells(capture, point))
    notes = (Text(note, style="dim") for note in capture_notes(capture))
    return Group(Text(capture.summary, style="bold"), table, *notes)


def capture_html(capture: Capture) -> str:
    """The capture as an HTML table, a row for each point."""
    rows = ((0, point_cells(capture, point)) for point in capture)
    return table_html(capture.summary, HEAD, rows, capture_notes(capture))


def point_cells(capture: Capture, point: Point) -> tuple[str, ...]:
    """One point as it stands in a table."""
    dtype = "" if point.dtype is None else dtype_name(point.dtype)
    shape = "x".join(map(str, point.shape)) or ("scalar" if point.rows else "")
    size = f"{engineering(point.nbytes)}B"
    return point.path or "(the model)", point.type, f"{capture.captured:,}", f"{point.rows:,}", shape, dtype, size


def capture_notes(capture: Capture) -> Iterator[str]:
    """What is missing, and what was skipped."""
    missing = capture.missing
    if missing:
        yield f"missing: {counted(len(missing), 'unit')} of {capture.unit} examples each: {few(ranges(missing))}"
    if capture.skipped:
        why = [f"{number} ({reason})" for number, reason in sorted(capture.skipped.items())]
        yield f"skipped: {counted(len(why), 'example')}: {few(why, most=3)}"


def ranges(numbers: Sequence[int]) -> list[str]:
    """Ascending numbers, those that follow on one another together.

    >>> ranges([0, 2, 3, 4, 9])
    ['0', '2-4', '9']
    """
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ["-".join(map(str, each)) for each in found]
