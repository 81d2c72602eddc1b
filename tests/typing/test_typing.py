"""A user's code under type checkers: what is right passes, and each line that is wrong is reported."""

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path

import pytest

import hookline

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SOURCE = Path(hookline.__file__).parent.parent
Errors = dict[int, str]


def run(*command: str) -> str:
    environment = {**os.environ, "MYPYPATH": str(SOURCE)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(path: Path) -> Errors:
    """The errors by line that mypy reports in a file, with the settings of the project, which are strict."""
    pytest.importorskip("mypy")
    lines = run(sys.executable, "-m", "mypy", "--strict", "--no-warn-unused-configs", str(path)).splitlines()
    found = [re.match(rf"{re.escape(str(path.relative_to(ROOT)))}:(\d+): error: (.*)", line) for line in lines]
    return {int(each[1]): each[2] for each in found if each}


def pyright(path: Path, tmp_path: Path) -> Errors:
    """The errors by line that pyright reports in a file."""
    program = shutil.which("pyright")
    if program is None:
        pytest.skip("pyright is not installed on this machine")
    shutil.copy(path, tmp_path)
    settings = {"include": [path.name], "extraPaths": [str(SOURCE)], "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    told = json.loads(run(program, "--outputjson", "--pythonpath", sys.executable, "--project", str(tmp_path)))
    assert told["summary"]["filesAnalyzed"] == 1
    errors = [each for each in told["generalDiagnostics"] if each["severity"] == "error"]
    return {each["range"]["start"]["line"] + 1: each["message"] for each in errors}


@pytest.fixture(params=["mypy", "pyright"])
def checked(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], Errors]:
    return mypy if request.param == "mypy" else lambda path: pyright(path, tmp_path)


def test_right_uses_pass(checked: Callable[[Path], Errors]) -> None:
    assert checked(HERE / "right.py") == {}


def test_each_wrong_use_is_reported(checked: Callable[[Path], Errors]) -> None:
    path = HERE / "wrong.py"
    marked = {number for number, line in enumerate(path.read_text().splitlines(), 1) if line.endswith("# wrong")}

    assert {*checked(path)} == marked


def test_completion_offers_the_figures() -> None:
    assert {"mean", "std", "absmax", "nan", "shape", "dtype", "stats", "grad"} <= {*dir(hookline.TensorInfo())}


def annotated(function: Callable[..., object]) -> set[str]:
    """The names of classes and aliases of hookline in the annotations of a function."""
    tree = ast.parse(inspect.getsource(function))
    signature = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    parts = [*ast.walk(signature.args), *(ast.walk(signature.returns) if signature.returns else ())]
    known = vars(sys.modules[function.__module__])
    found = {node.id: known.get(node.id) for node in parts if isinstance(node, ast.Name) and node.id[0].isupper()}
    return {
        name
        for name, value in found.items()
        if name not in vars(typing) and (not isinstance(value, type) or value.__module__.startswith("hookline"))
    }


@pytest.mark.parametrize("name", [name for name in hookline.__all__ if inspect.isfunction(getattr(hookline, name))])
def test_names_in_public_signatures_are_exported(name: str) -> None:
    known = {*hookline.__all__, *hookline.edits.__all__}
    assert annotated(getattr(hookline, name)) - known == set()
