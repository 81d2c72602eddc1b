"""The code in the README, in docstrings, in the guides and in the examples' folder runs, and prints what it says."""

import doctest
import importlib
import pkgutil
import re
import runpy
from pathlib import Path
from textwrap import dedent

import pytest

import hookline

ROOT = Path(__file__).parent.parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [
    name for _, name, _ in pkgutil.walk_packages(hookline.__path__, "hookline.") if not name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_are_true(name):
    if name == "hookline.integrations.lightning":
        pytest.importorskip("lightning", reason="lightning is not installed")
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert failed == 0


@pytest.mark.parametrize("path", ["README.md", "docs/index.md"])
def test_the_first_program_prints_what_stands_below_it(path, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    program, output = re.findall(r"```(?:python|text)\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)[:2]
    exec(compile(program, path, "exec"), {})
    assert without_figures(capsys.readouterr().out) == without_figures(output)


def without_figures(text):
    """Words, shapes and counts; not the figures and times, which the machine has a say in."""
    return [
        re.sub(r"-?\d+\.?\d*(e-?\d+)?(?= ms|\s|$)|(?<=\s)\d+%", "#", line).split() for line in text.strip().splitlines()
    ]


PRINTED = {
    "probe_minilm": "4 of 8 units are missing\n0 of 8 units are missing\n0 of 8 units are missing\n",
    "sae": "of the variance explained\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(path, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(path.read_text().splitlines()) <= 40
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert printed
    assert PRINTED.get(path.stem, "") in printed


LESSONS = [path for folder in ("tutorial", "guides") for path in sorted((ROOT / "docs" / folder).glob("*.md"))]


@pytest.mark.slow
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_programs_of_lessons_and_guides_print_what_these_say(path, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, block in re.findall(r"^ *```(\w+)\n(.*?)^ *```$", path.read_text(), re.DOTALL | re.MULTILINE):
        if language == "python":
            capsys.readouterr()
            exec(compile(dedent(block), str(path), "exec"), names)
        elif language == "text":
            assert_alike(capsys.readouterr().out, block)


def assert_alike(printed, written):
    """The same words, and figures that are close; of a table with times the words alone."""
    if re.search(r" ms\b", written):
        assert without_figures(printed) == without_figures(written)
        return
    for one, other in zip(printed.split(), written.split(), strict=True):
        if re.fullmatch(r"[+-]+", other):
            continue
        try:
            assert float(one) == pytest.approx(float(other), rel=0.1, abs=0.02, nan_ok=True)
        except ValueError:
            assert one == other
