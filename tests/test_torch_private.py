"""PyTorch's private names go through one door, and each of them exists."""

import ast
import re
from pathlib import Path

import pytest

import hookline
from hookline import torch_private
from hookline.torch_private import compiler

ROOT = Path(hookline.__file__).parent
DOOR = ROOT / "torch_private"
PRIVATE = re.compile(r"^torch(\.\w+)*\._\w+|^torch\.fx\.experimental\.|^torch\.(\w+\.)*_\w")


@pytest.mark.parametrize("module", [torch_private, compiler], ids=["names", "compiler"])
def test_every_listed_name_exists(module):
    assert sorted(module.NAMES) == module.__all__
    assert all(getattr(module, name, None) is not None for name in module.NAMES)


@pytest.mark.parametrize("thing", torch_private.ATTRIBUTES, ids=lambda thing: getattr(thing, "__name__", type(thing)))
def test_every_listed_attribute_exists(thing):
    assert [name for name in torch_private.ATTRIBUTES[thing] if not hasattr(thing, name)] == []


@pytest.mark.parametrize("module", [torch_private, compiler], ids=["names", "compiler"])
def test_every_name_has_its_reason_and_release(module):
    tables = [module.NAMES, *getattr(module, "ATTRIBUTES", {}).values()]
    for table in tables:
        for why, since in table.values():
            assert len(why) > 5
            assert since in ("2.6", "2.12")


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
