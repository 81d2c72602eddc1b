"""Tests of the plain table of a page: rows and words, and that nothing of a model's names is read as HTML."""

from html import escape
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hookline
from hookline import Run
from hookline.report.html import findings_html, run_html
from hookline.report.text import run_head

EVIL = "</td><script>alert('1')</script>&amp;\"[bold]"


class Table(HTMLParser):
    """What a browser makes of the fragment: the text of every cell by row, the text around the table, and all tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.around = ""
        self.tags: list[str] = []
        self.styles: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.styles.append(dict(attrs).get("style") or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        else:
            self.around += data


def recorded(module: nn.Module, **settings: Any) -> Run:
    with hookline.watch(module, **settings) as run:
        module(torch.tensor([[-1.0, 0.0, 3.0, 1.0]]))
    return run


def table(run: Run) -> Table:
    return Table(run_html(run))


def test_every_tag_is_closed_and_none_is_of_another_kind() -> None:
    parsed = table(recorded(nn.Sequential(nn.ReLU())))

    assert parsed.open == []
    assert set(parsed.tags) == {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"}


def test_the_head_names_the_columns() -> None:
    run = recorded(nn.ReLU())

    assert table(run).rows[0] == [*run_head(run)]


def test_the_line_above_counts_calls_and_modules() -> None:
    assert table(recorded(nn.Sequential(nn.ReLU()))).around.startswith("Sequential: 2 calls of 2 modules, ")


def test_a_row_tells_class_shapes_and_figures() -> None:
    row = table(recorded(nn.ReLU())).rows[1]

    assert row[:4] == ["ReLU", "ReLU", "1x4", "1x4"]
    assert row[5:] == ["1", "1.225", "3", "50%"]


def test_every_row_has_a_cell_for_each_column() -> None:
    parsed = table(recorded(nn.Sequential(nn.ReLU(), nn.Flatten()), keep="shape"))

    assert [len(row) for row in parsed.rows] == [5] * 4


def test_rows_are_in_call_order_indented_by_depth() -> None:
    parsed = table(recorded(nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU())))

    assert [row[0] for row in parsed.rows[1:]] == ["Sequential", "0", "0", "1"]
    assert [style for style in parsed.styles if "padding" in style] == [
        f"padding-left:{depth}em" for depth in (1, 2, 1)
    ]


def test_gradients_are_shown_by_their_norm() -> None:
    net = nn.Linear(4, 1)
    with hookline.watch(net, grads=True) as run:
        (net(torch.ones(1, 4)) * 7).sum().backward()

    assert table(run).rows[1][-1] == "7"


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError(EVIL)


def test_names_that_look_like_html_are_shown_as_they_are() -> None:
    evil = type(EVIL, (nn.ReLU,), {})()
    row = table(recorded(nn.Sequential(evil))).rows[2]

    assert row[:2] == ["0", EVIL]
    assert table(recorded(evil)).around.startswith(f"{EVIL}: 1 call")


def test_paths_and_errors_that_look_like_html_are_shown_as_they_are() -> None:
    net = nn.ModuleDict({EVIL: Fails()})
    with pytest.raises(ValueError), hookline.watch(net) as run:
        net[EVIL](torch.ones(1))
    row = table(run).rows[1]

    assert row[0] == EVIL
    assert row[3] == f"raised ValueError: {EVIL}"


def test_nothing_is_loaded_from_anywhere() -> None:
    html = run_html(recorded(nn.Sequential(nn.ReLU())))

    assert "http" not in html
    assert "src=" not in html


def test_a_long_run_shows_all_of_its_calls(long: Run) -> None:
    assert len(table(long).rows) == 1 + 1500


def test_an_empty_run_is_a_table_without_rows() -> None:
    with hookline.watch(nn.ReLU()) as run:
        pass

    assert table(run).rows == []


# Findings


def test_findings_are_a_table_of_escaped_words() -> None:
    @hookline.rule("evil", advice=EVIL)
    def evil(evidence: hookline.Evidence) -> Any:
        yield hookline.Finding(EVIL, EVIL)

    html = findings_html(hookline.check(nn.ReLU(), torch.ones(2), rules=[evil]))

    assert "ReLU: 1 warning" in html
    assert html.count(escape(EVIL)) == 3
    assert EVIL not in html


def test_nothing_found_is_no_table() -> None:
    html = findings_html(hookline.check(nn.ReLU(), torch.ones(2)))

    assert "nothing found" in html
    assert "<table>" not in html
