"""The worst of stilted language does not come back: words and phrases that no text of the project uses."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTEAD = {  # what is not written: what is
    "inside of": "inside",
    "let go of": "drop, remove, forget",
    "lets go of": "drops, removes, forgets",
    "dearest": "the most expensive",
    "costliest": "the most expensive",
    "makes the difference": "is the culprit",
    "MAKES IT": "CULPRIT",
    "is told of": "is recorded, is reported",
    "takes back": "undoes, removes",
}
TEXTS = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "src/**/*.py",
        "src/**/*.md",
        "src/**/*.js",
        "src/**/*.html",
        "examples/**/*",
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and path.suffix in (".md", ".py", ".js", ".html") and "site" not in path.relative_to(ROOT).parts
)


def found_in(text: str) -> list[str]:
    """The phrases of the list that a text has, over line breaks too."""
    running = re.sub(r"\s+", " ", text)
    return [phrase for phrase in INSTEAD if re.search(rf"\b{re.escape(phrase)}\b", running)]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_text_uses_plain_words(path: Path) -> None:
    assert {phrase: INSTEAD[phrase] for phrase in found_in(path.read_text())} == {}


def test_phrase_over_a_line_break_is_found() -> None:
    assert found_in("what runs inside\n    of it") == ["inside of"]
