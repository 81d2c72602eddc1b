"""The worst of stilted language does not come back: words and phrases that no text of the project uses."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTEAD = {  # what is not written: what is
    "as far as is known": "as far as known",
    "as it comes": "unchanged",
    "as it should be": "correct, valid",
    "before anything ran": "before the first call",
    "cannot be told": "is unknown",
    "costliest": "the most expensive",
    "dearest": "the most expensive",
    "does not let itself": "cannot be",
    "for ever": "forever",
    "gives back": "returns",
    "inside of": "inside",
    "is no edit": "is not an edit",
    "is no glob": "is not a glob",
    "let go of": "drop, remove, forget",
    "lets go of": "drops, removes, forgets",
    "lets itself": "can be",
    "makes the difference": "is the culprit",
    "MAKES IT": "CULPRIT",
    "next to nothing": "almost nothing",
    "nobody but": "only",
    "puts back": "restores",
    "sees to": "handles",
    "take off": "remove",
    "taken off": "removed",
    "takes back": "undoes, removes",
    "takes off": "removes",
    "to be looked at": "to look at",
    "told of": "recorded, reported",
    "turned round": "transposed, reversed",
    "went on by": "advanced by",
    "what it gave": "its output",
    "what it is given": "its inputs",
    "what it was given": "its inputs",
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
        "benchmarks/**/*.py",
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


def messages_of(tree: ast.AST) -> Iterator[str]:
    """The texts in a program that are not docstrings."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


WRONG_CHOICE = re.compile(r"\bis not known[;:] it is\b|=\.\.\. is not known\b")


def test_wrong_choices_are_worded_the_same_way() -> None:
    sources = sorted((ROOT / "src").rglob("*.py"))
    texts = [(path.name, text) for path in sources for text in messages_of(ast.parse(path.read_text()))]

    assert [each for each in texts if WRONG_CHOICE.search(each[1])] == []
    assert ("messages.py", "... must be ..., not ...") in texts


def test_message_of_the_old_form_is_found() -> None:
    program = 'raise ValueError(f"keep={keep!r} is not known; it is {choices}")'
    assert [text for text in messages_of(ast.parse(program)) if WRONG_CHOICE.search(text)]


def test_phrase_over_a_line_break_is_found() -> None:
    assert found_in("what runs inside\n    of it") == ["inside of"]
