"""The tables in docs/explain/check.md say what is found today."""

import pytest

from planted.table import PAGE, in_place, tables


@pytest.mark.slow
def test_the_page_holds_what_the_runs_give() -> None:
    page = PAGE.read_text()

    for name, table in tables().items():
        stale = f"the table {name!r} is stale: PYTHONPATH=src:tests python -m planted.table"
        assert in_place(page, name) == table, stale
