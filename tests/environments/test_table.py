"""The table of environments names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explain" / "where-it-runs.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| environment")]


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_a_row_names_a_test_that_exists(row):
    *_, named, _ = (cell.strip() for cell in row.split("|"))
    path, name = re.fullmatch(r"`(\S+\.py)::(test_\w+)`", named).groups()
    assert f"def {name}(" in (ROOT / "tests" / path).read_text()


def test_every_row_has_the_columns_of_its_head():
    assert {row.count("|") for row in ROWS} == {5}
