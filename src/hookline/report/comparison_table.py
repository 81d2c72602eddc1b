"""A comparison of two captures as a table: a row for each point, below it what was captured otherwise."""

from collections.abc import Iterator

from hookline.capturing.compared import CaptureDiff, PointDiff
from hookline.capturing.signature import SAYS
from hookline.messages import counted, figure
from hookline.model.console import Group, Text
from hookline.report.fit import Fitted
from hookline.report.html import table_html

HEAD = ("point", "class", "rows", "differ", "share", "largest", "first example", "")
SPARE = (1, 4, 2)  # that of least use first


def comparison_table(found: CaptureDiff) -> Group:
    """The comparison as a rich table, a row for each point."""
    table = Fitted(HEAD, SPARE, left=(0, 1, 7), wrapped=(7,))
    for point in found:
        table.add_row(*point_cells(point), style=None if point.differs else "dim")
    asked = (Text(note, style="yellow") for note in asked_otherwise(found))
    notes = (Text(note, style="dim") for note in comparison_notes(found))
    return Group(Text(found.summary, style="bold"), *asked, table, *notes)


def comparison_html(found: CaptureDiff) -> str:
    """The comparison as an HTML table, a row for each point."""
    rows = ((0, point_cells(point)) for point in found)
    return table_html(found.summary, HEAD, rows, [*asked_otherwise(found), *comparison_notes(found)])


def point_cells(point: PointDiff) -> tuple[str, ...]:
    """One point as it stands in a table."""
    name = point.path or "(the model)"
    if point.why and not point.compared:
        return name, point.type, "", "", "", "", "", words(point)
    first = "" if point.first is None else str(point.first)
    if point.first_id not in (None, first):
        first = f"{first} ({point.first_id})"
    share = f"{point.share:.2%}" if point.differing else ""
    largest = figure(point.largest) if point.differing else ""
    return name, point.type, f"{point.compared:,}", f"{point.differing:,}", share, largest, first, words(point)


def words(point: PointDiff) -> str:
    """What a point has to say besides its figures."""
    shapes, dtypes = ("x".join(map(str, shape or ())) or "scalar" for shape in point.shapes), point.dtypes
    told = {"other shape": f": {' vs '.join(shapes)}", "other dtype": f": {dtypes[0]} vs {dtypes[1]}"}
    parts = [f"{point.why}{told.get(point.why, '')}"] if point.why else []
    if point.other_rows:
        parts.append(f"{counted(point.other_rows, 'example')} with other rows")
    return ", ".join(parts) or ("" if point.differs else "identical" if point.compared else "no rows in both")


def asked_otherwise(found: CaptureDiff) -> Iterator[str]:
    """What was captured otherwise, with both values."""
    for name, (one, other) in found.signature.items():
        yield f"{SAYS.get(name, f'another {name}')}: {one} vs {other}"


def comparison_notes(found: CaptureDiff) -> Iterator[str]:
    """Which examples were compared."""
    yield f"{counted(found.examples, 'example')} in both"
    for count, whose in ((found.only_a, "first"), (found.only_b, "second")):
        if count:
            yield f"{counted(count, 'example')} only in the {whose}"
