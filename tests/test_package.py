"""What a package index shows of a release: links that work from there."""

import re
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

ROOT = Path(__file__).parents[1]
RELATIVE = re.compile(r"""(?:\]\(|src="|href=")(?!https?://|#)""")
ADDRESS = "https://example.org/hookline"


def built(monkeypatch: pytest.MonkeyPatch, **environment: str) -> ProjectMetadata:
    for name in ("HOOKLINE_REPOSITORY", "GITHUB_REPOSITORY", "GITHUB_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return ProjectMetadata(str(ROOT), PluginManager())


def test_readme_of_a_release_has_no_relative_link(monkeypatch: pytest.MonkeyPatch) -> None:
    core = built(monkeypatch, HOOKLINE_REPOSITORY=ADDRESS).core

    assert RELATIVE.search(core.readme) is None
    assert f'<img src="{ADDRESS}/raw/main/docs/pictures/run-light.png"' in core.readme
    assert f"]({ADDRESS}/blob/main/docs/guides/watch.md)" in core.readme


def test_readme_is_the_checked_in_one_but_for_links(monkeypatch: pytest.MonkeyPatch) -> None:
    readme = built(monkeypatch, HOOKLINE_REPOSITORY=ADDRESS).core.readme

    assert re.sub(rf"{ADDRESS}/(?:blob|raw)/main/", "", readme) == (ROOT / "README.md").read_text()


def test_release_from_a_workflow_has_the_urls_of_its_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    core = built(monkeypatch, GITHUB_REPOSITORY="someone/hookline").core

    assert core.urls["Repository"] == "https://github.com/someone/hookline"
    assert core.urls["Changelog"] == "https://github.com/someone/hookline/blob/main/CHANGELOG.md"


def test_build_without_an_address_invents_none(monkeypatch: pytest.MonkeyPatch) -> None:
    core = built(monkeypatch).core

    assert core.urls == {}
    assert core.readme == (ROOT / "README.md").read_text()


def test_every_relative_link_of_the_readme_leads_to_a_file() -> None:
    targets = re.findall(r"""(?:\]\(|src=")(?!https?://|#)([^)"#]+)""", (ROOT / "README.md").read_text())

    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
