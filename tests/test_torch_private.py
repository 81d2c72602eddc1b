"""PyTorch's private names go through one door, and each of them exists."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import torch
from torch._dynamo.variables.misc import SuperVariable

import hookline
from hookline import torch_private

ROOT = Path(hookline.__file__).parent
DOOR = ROOT / "torch_private"
PRIVATE = re.compile(r"^torch(\.\w+)*\._\w+|^torch\.fx\.experimental\.|^torch\.(\w+\.)*_\w")
LINE = re.compile(r"^from (?P<module>torch\S*) import (?P<name>\w+) as \w+ .*# 2\.\d+: \w.+$")
IMPORTS = [
    line for path in DOOR.glob("*.py") for line in path.read_text().splitlines() if line.startswith("from torch")
]
HOLDERS = {
    "torch.nn.Module": torch.nn.Module,
    "torch.nn.Module()": torch.nn.Module(),
    "torch.nn.modules.module": torch.nn.modules.module,
    "torch.zeros(1)": torch.zeros(1),
}


@pytest.mark.parametrize("line", IMPORTS, ids=lambda line: line.split()[3])
def test_every_name_exists_and_says_since_when_and_what_for(line):
    found = LINE.match(line)
    assert found, "not: from torch... import name as name  # 2.x: what for"
    assert hasattr(importlib.import_module(found["module"]), found["name"])


@pytest.mark.parametrize("name", torch_private.ATTRIBUTES)
def test_every_attribute_exists(name):
    holder, since, why = torch_private.ATTRIBUTES[name].split(": ", 2)
    assert hasattr(HOLDERS[holder], name)
    assert since in ("2.6", "2.12")
    assert why


def test_the_method_in_which_dynamo_finds_super_exists():
    assert hasattr(SuperVariable, torch_private.FINDS_SUPER)


def private_imports(path: Path) -> list[str]:
    """The private names of PyTorch that a file imports or reads from `torch` by a dotted name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "torch":
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch."):
            found.append(ast.unparse(node))
    return [name for name in found if PRIVATE.match(name) and not name.endswith("__")]


def test_no_other_file_imports_a_private_name():
    files = [path for path in ROOT.rglob("*.py") if DOOR not in path.parents]
    assert {str(path.relative_to(ROOT)): names for path in files if (names := private_imports(path))} == {}


def test_a_private_import_is_noticed(tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text("from torch._C import _is_tracing\nimport torch\ntorch._dynamo.config\n")
    assert private_imports(path) == ["torch._C._is_tracing", "torch._dynamo.config", "torch._dynamo"]
