"""A result as a page: one HTML file with its data, script and style, which loads nothing else."""

import os
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from hookline.store.file import write_text

HERE = Path(__file__).parent
SCRIPTS = (
    "elements",
    "theme",
    "figures",
    "calls",
    "glob",
    "picture",
    "tree",
    "flow",
    "flame",
    "details",
    "views",
    "main",
)
OF_MONITOR = ("elements", "theme", "figures", "course")
LOWEST, HIGHEST, ROW, AROUND = 420, 860, 26, 430  # pixels of a page inside a notebook


def page(document: Mapping[str, Any], table: str) -> str:
    """The page of a document (see docs/format.md); `table` is the HTML shown without JavaScript."""
    name, scripts = ("monitor.html", OF_MONITOR) if document["kind"] == "monitor" else ("page.html", SCRIPTS)
    return _filled(name, document=document, table=table, style=_text("page.css"), script=_script(scripts))


def write_page(path: str | os.PathLike[str], document: Mapping[str, Any], table: str) -> None:
    """Write the page, whole or not at all; StoreError where it cannot be written."""
    write_text(path, page(document, table))


def write_table_page(path: str | os.PathLike[str], kind: str, title: str, table: str) -> None:
    """Write a page that is one table, without a script, whole or not at all; StoreError where it cannot be written."""
    words = {"kind": kind, "title": title, "table": table, "style": _text("page.css")}
    write_text(path, _filled("table.html", **words))


def inline(document: Mapping[str, Any], table: str) -> str:
    """The page for a notebook: in a frame of the height it needs."""
    rows = len(document["calls"]) if "calls" in document else max(len(run["paths"]) for run in document["runs"])
    height = min(HIGHEST, max(LOWEST, AROUND + ROW * rows))
    return (
        f'<iframe title="hookline: {escape(document["title"])}" sandbox="allow-scripts" '
        f'style="width:100%;height:{height}px;border:0" srcdoc="{escape(page(document, table))}"></iframe>'
    )


def _filled(name: str, **words: Any) -> str:
    return str(_template(name).render(**words))


@cache
def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":"), "ensure_ascii": False}
    return environment.get_template(name)


@cache
def _script(names: tuple[str, ...]) -> str:
    """All scripts one after the other. They share one scope, and none uses a later one while it loads."""
    return "\n".join(_text(f"{name}.js") for name in names)


def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
