"""A table that leaves out columns, the least useful first, if they do not all fit; names are never cut."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hookline.model.console import Console, ConsoleOptions, RenderResult, Table, Text, cell_len

GAP = 2  # between two columns


@dataclass
class Fitted:
    """A table of texts that is laid out when its width is known.

    - `head`: the names of the columns; the first column holds names and always stays;
    - `rows`: the cells of each row and its style;
    - `spare`: the indices of columns that may be left out, the least useful first;
    - `wrapped`: the indices of columns whose cells may wrap;
    - `left`: the indices of columns that are aligned left.
    """

    head: Sequence[str]
    spare: Sequence[int]
    left: Sequence[int] = (0, 1)
    wrapped: Sequence[int] = ()
    rows: list[tuple[Sequence[Text], str | None]] = field(default_factory=list)

    def add_row(self, *cells: str | Text, style: str | None = None) -> None:
        """Add a row."""
        self.rows.append(([Text(cell) if isinstance(cell, str) else cell for cell in cells], style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for cells, _ in self.rows:
            cells[0].plain = indented(cells[0].plain, options.max_width // 3)
        spare = [*self.spare]
        places = [*range(len(self.head))]
        while spare and self._width(places) > options.max_width:
            places.remove(spare.pop(0))
        yield self._table(places, fits=self._width(places) <= options.max_width)
        without = [name for place, name in enumerate(self.head) if name and place not in places]
        if without:
            yield Text(f"too narrow for {', '.join(without)}", style="dim")

    def _width(self, places: Sequence[int]) -> int:
        """The width that these columns need, in characters."""
        return sum(self._needed(place) for place in places) + GAP * (len(places) - 1)

    def _needed(self, place: int) -> int:
        texts = [self.head[place], *(cells[place].plain for cells, _ in self.rows)]
        if place in self.wrapped:
            texts = [word for text in texts for word in text.split()]
        return max(map(cell_len, texts), default=0)

    def _table(self, places: Sequence[int], *, fits: bool) -> Table:
        table = Table(box=None, pad_edge=False)
        for place in places:
            table.add_column(
                self.head[place],
                justify="left" if place in self.left else "right",
                no_wrap=fits and place not in self.wrapped,
                overflow="fold",
            )
        for cells, style in self.rows:
            table.add_row(*(cells[place] for place in places), style=style)
        return table


def indented(name: str, most: int) -> str:
    """A name with its indentation limited, so that a deep tree does not push out the other columns."""
    own = name.lstrip(" ")
    return " " * min(most, len(name) - len(own)) + own
