"""What can break quietly in the documentation: names that are missing, pages nobody finds, pictures and links to nothing."""

import os
import re
from pathlib import Path

import pytest
import yaml

import hookline
from hookline import edits, errors

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
REFERENCE = re.findall(
    r"^::: (\S+)$", "\n".join(page.read_text() for page in (DOCS / "reference").glob("*.md")), re.MULTILINE
)
MADE_BY_THE_BUILD = "live"


def pages_of(nav):
    """The pages of a part of the navigation."""
    match nav:
        case str():
            return [nav]
        case list():
            return [page for part in nav for page in pages_of(part)]
        case dict():
            return pages_of([*nav.values()])


def test_every_public_name_is_in_the_reference_once():
    names = {f"hookline.{name}" for name in hookline.__all__} | {f"hookline.edits.{name}" for name in edits.__all__}
    assert names - {*REFERENCE} == set()
    assert len(REFERENCE) == len({*REFERENCE})


def test_every_error_is_in_the_reference():
    found = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert {f"hookline.{name}" for name in found} <= {*REFERENCE}


def test_every_page_is_in_the_navigation_once():
    nav = pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(nav) == [page.relative_to(DOCS).as_posix() for page in PAGES]


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_links_and_pictures_lead_to_something(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"(?:src|srcset)=\"([^\"]+)\"", text)
    targets = [Path(os.path.normpath(page.parent / link)) for link in links if not re.match(r"https?:", link)]
    made = DOCS / MADE_BY_THE_BUILD
    assert [str(target) for target in targets if not target.exists() and made not in target.parents] == []


def test_pictures_are_small():
    assert [picture.name for picture in (DOCS / "pictures").iterdir() if picture.stat().st_size > 200_000] == []


@pytest.fixture(scope="module")
def site_hooks():
    pytest.importorskip("mkdocs")
    from scripts import site_hooks

    return site_hooks


def test_the_help_of_every_command_is_on_the_command_lines_page(site_hooks):
    from hookline.cli.app import app

    text = "\n".join(site_hooks.commands())
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert re.findall(r"^## hookline (\w+)$", text, re.MULTILINE) == names
    assert "[bold]" not in text
    assert "`--inputs SPEC`" in text


def test_lists_and_examples_of_docstrings_become_markdown(site_hooks):
    lines = ["Of these:", "- one", "  and more", "- two", "Then:", ">>> 1", "1", "", "End."]
    assert [*site_hooks.as_markdown(lines)] == [
        *("Of these:", "", "- one", "  and more", "- two", "", "Then:"),
        *("", "```pycon", ">>> 1", "1", "```", "", "End."),
    ]


def test_links_out_of_docs_become_paths(site_hooks):
    class Page:
        class file:
            src_uri = "explain/check.md"

    text = "[engine](../../src/hookline/engine/README.md) [guide](../guides/check.md) [tests/zoo](../../tests/zoo)"
    assert site_hooks.on_page_markdown(text, Page, None, None) == (
        "engine (`src/hookline/engine/README.md`) [guide](../guides/check.md) `tests/zoo`"
    )
