"""Imports go down the layers only."""

import ast
from pathlib import Path

import hookline

ROOT = Path(hookline.__file__).parent
LAYERS = [
    "torch_private",
    "errors",
    "messages",
    "model",
    "engine",
    "store",
    "report",
    "record",
    "demo",
    "edits",
    "matching",
    "compare",
    "guarding",
    "profiling",
    "checking",
    "tools",
    "testing",
    "__init__",
    "cli",
    "__main__",
]


def imported(path: Path) -> set[str]:
    """The layers that a file imports when it runs: what stands under TYPE_CHECKING does not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names = [module.split(".") for module in modules if module.split(".")[0] == "hookline"]
    return {parts[1] if len(parts) > 1 else "__init__" for parts in names}


def test_imports_go_down_the_layers_only():
    for path in ROOT.rglob("*.py"):
        layer = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for other in imported(path):
            assert LAYERS.index(other) <= LAYERS.index(layer), f"{path} imports {other}"


def test_no_tool_imports_another():
    for path in (ROOT / "tools").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            assert not module.startswith("hookline.tools"), path
