"""The tables of docs/explain/check.md, made by running what they show: `PYTHONPATH=src:tests python -m planted.table`."""

import re
from collections.abc import Iterable
from pathlib import Path

from zoo.runs import expected
from zoo.test_check_is_quiet import HEALTHY as HEALTHY_MODELS
from zoo.test_check_is_quiet import checked

import hookline
from planted.faults import FAULTS, Fault
from planted.healthy import HEALTHY

PAGE = Path(__file__).parents[2] / "docs" / "explain" / "check.md"


def tables() -> dict[str, str]:
    """The text of each table, by name."""
    return {"rules": rules(), "hits": hits(), "false alarms": false_alarms()}


def rules() -> str:
    """Every rule of the list, with what its docstring says that it looks for."""
    rows = ((f"`{rule.name}`", rule.severity, _line(rule.function.__doc__), rule.advice) for rule in hookline.RULES)
    return _table(("rule", "severity", "what it finds", "what to do"), rows)


def hits() -> str:
    """Every planted fault, and what was found of it."""
    rows = [_hit(fault) for fault in FAULTS]
    found = sum(row[3] == "yes" for row in rows)
    return _table(("planted", "rule", "module", "found", "also reported"), rows) + (
        f"\n\n{found} of {len(rows)} are found, by rule and module."
    )


def _hit(fault: Fault) -> tuple[str, ...]:
    told = {(each.rule, each.path) for each in fault.find().at_least("warning")}
    found = "yes" if (fault.rule, fault.path) in told else "no"
    others = sorted({rule for rule, _ in told} - {fault.rule})
    return fault.about, f"`{fault.rule}`", _module(fault.path), found, ", ".join(f"`{rule}`" for rule in others)


def false_alarms() -> str:
    """How many findings healthy models and training runs gave."""
    models = [checked(each, train=train) for each in HEALTHY_MODELS for train in (False, True)]
    with expected(()):
        runs = [run().found for run in HEALTHY.values()]
    rows = [
        _count(f"{len(HEALTHY_MODELS)} models of tests/zoo, in train and in eval mode", models),
        _count("training runs that resemble a fault (tests/planted/healthy.py)", runs),
    ]
    return _table(("healthy", "checks", "errors", "warnings", "notes"), rows)


def _count(name: str, checks: list[tuple[hookline.Finding, ...]]) -> tuple[str, ...]:
    counts = [sum(each.severity == kind for found in checks for each in found) for kind in ("error", "warning", "note")]
    return name, str(len(checks)), *map(str, counts)


def _module(path: str) -> str:
    return f"`{path}`" if path else "the model"


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = [*head]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in (names, ["---"] * len(names), *rows)
    )


def put(page: str, name: str, table: str) -> str:
    """The page with a table in its place."""
    return re.sub(
        rf"(?<=<!-- table: {name} -->\n).*?(?=\n<!-- end -->)", lambda _: table, page, count=1, flags=re.DOTALL
    )


def in_place(page: str, name: str) -> str:
    """The table that stands in a page."""
    found = re.search(rf"<!-- table: {name} -->\n(.*?)\n<!-- end -->", page, flags=re.DOTALL)
    assert found is not None, f"{PAGE.name} has no place for the table {name!r}"
    return found[1]


if __name__ == "__main__":
    page = PAGE.read_text()
    for name, table in tables().items():
        page = put(page, name, table)
    PAGE.write_text(page)
