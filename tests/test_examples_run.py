"""The code in the README, the guides, docstrings and the examples' folder runs, and prints what it says."""

import doctest
import importlib
import pkgutil
import re
import runpy
from pathlib import Path

import pytest

import hookline

ROOT = Path(__file__).parent.parent
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = [
    name for _, name, _ in pkgutil.walk_packages(hookline.__path__, "hookline.") if not name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_are_true(name):
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert failed == 0


def test_the_readmes_program_prints_what_the_readme_says(capsys):
    program, output = re.findall(r"```(?:python|text)\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[:2]
    exec(compile(program, "README.md", "exec"), {})
    assert without_figures(capsys.readouterr().out) == without_figures(output)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "guides").glob("*.md")), ids=lambda path: path.stem)
def test_the_programs_of_the_guides_run(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    programs = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    exec(compile("\n".join(programs), str(path), "exec"), {})


def without_figures(text):
    """Words, shapes and counts; not the figures and times, which the machine has a say in."""
    return [
        re.sub(r"-?\d+\.?\d*(e-?\d+)?(?= ms|\s|$)|(?<=\s)\d+%", "#", line).split() for line in text.strip().splitlines()
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run(path, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(path.read_text().splitlines()) <= 40
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out
