"""A sweep as a table: the change by an edit in each place, as a figure and a colour."""

import math
from html import escape

from hookline.messages import figure
from hookline.model.console import Column, Group, Style, Table, Text, cell_len
from hookline.sweeping.swept import Cell, Sweep

BAR = 24
LESS, MORE = (33, 102, 172), (178, 24, 43)  # blue and red, which colour-blind people can tell apart


def sweep_table(sweep: Sweep) -> Group:
    """The sweep as a rich table: a row for each module, a column for each part."""
    head = [*sweep.labels] if sweep.labels != [""] else ["value", "change", ""]
    widest = max((cell_len(path or "(the model)") for path in sweep.paths), default=0)
    table = Table(Column("module", no_wrap=True, min_width=widest), box=None, pad_edge=False)
    for name in head:
        table.add_column(Text(name), justify="left" if name == "" else "right", no_wrap=True)
    largest = _largest(sweep)
    for path in sweep.paths:
        cells = [cell for label in sweep.labels if (cell := sweep.cells.get((path, label)))]
        if sweep.labels == [""]:
            row = [part for cell in cells for part in _line(sweep, cell, largest)]
        else:
            row = [_coloured(sweep.change(cell), largest) for cell in cells]
        table.add_row(Text(path or "(the model)"), *row)
    missing = Text(f"never called: {', '.join(sweep.never_called)}", style="dim")
    return Group(Text(sweep.summary, style="bold"), table, *([missing] if sweep.never_called else []))


def sweep_html(sweep: Sweep) -> str:
    """The sweep as an HTML table, each cell coloured by its change."""
    largest = _largest(sweep)
    names = sweep.labels if sweep.labels != [""] else ["change"]
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in ("module", *names))
    body = "".join(
        f"<tr><th scope='row' style='text-align:left'>{escape(path or '(the model)')}</th>"
        + "".join(_html_cell(sweep, sweep.cells.get((path, label)), largest) for label in sweep.labels)
        + "</tr>"
        for path in sweep.paths
    )
    return (
        f"<div><p><strong>{escape(sweep.summary)}</strong></p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _largest(sweep: Sweep) -> float:
    """The largest finite change, which gets the full colour."""
    return max((abs(change) for cell in sweep if math.isfinite(change := sweep.change(cell))), default=0.0)


def _line(sweep: Sweep, cell: Cell, largest: float) -> list[Text]:
    change = sweep.change(cell)
    share = _share(change, largest)
    bar = ("+" if share > 0 else "-") * round(abs(share) * BAR)
    return [Text(figure(cell.value)), Text(signed(change)), Text(bar, style="red" if share > 0 else "blue")]


def _coloured(change: float, largest: float) -> Text:
    share = _share(change, largest)
    back, front = _colours(share)
    return Text(f" {signed(change)} ", style=Style(color=f"rgb({front})", bgcolor=f"rgb({back})"))


def _html_cell(sweep: Sweep, cell: Cell | None, largest: float) -> str:
    if cell is None:
        return "<td></td>"
    change = sweep.change(cell)
    back, front = _colours(_share(change, largest))
    style = f"text-align:right;font-variant-numeric:tabular-nums;background:rgb({back});color:rgb({front})"
    return f"<td style='{style}' title='{escape(figure(cell.value))}'>{signed(change)}</td>"


def signed(change: float) -> str:
    """A change with its sign and three digits."""
    return "nan" if math.isnan(change) else f"{change:+.3g}"


def _share(change: float, largest: float) -> float:
    """A change as a share of the largest, from -1 to 1; NaN counts as the largest."""
    if not math.isfinite(change):
        return -1.0 if change == -math.inf else 1.0
    return change / largest if largest else 0.0


def _colours(share: float) -> tuple[str, str]:
    """The background of a share, white for 0, and a readable text colour on it."""
    end = MORE if share > 0 else LESS
    mixed = [round(255 + (part - 255) * abs(share)) for part in end]
    front = "255,255,255" if abs(share) > 0.7 else "0,0,0"
    return ",".join(map(str, mixed)), front
