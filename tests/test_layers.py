"""Imports go down the layers only."""

import ast
from pathlib import Path

import hookline

ROOT = Path(hookline.__file__).parent
LAYERS = [
    "torch_private",
    "errors",
    "messages",
    "nested",
    "result",
    "model",
    "engine",
    "store",
    "record",
    "demo",
    "edits",
    "matching",
    "compare",
    "capturing",
    "guarding",
    "profiling",
    "sweeping",
    "checking",
    "monitoring",
    "tools",
    "report",
    "loading",
    "testing",
    "integrations",
    "__init__",
    "cli",
    "__main__",
]


DOOR = ("result.py", "report")  # a result asks for its renderers when it is shown


def imported(path: Path) -> set[str]:
    """The layers that a file imports, wherever the import stands: in a function and under TYPE_CHECKING too."""
    tree = ast.parse(path.read_text())
    modules = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names = [module.split(".") for module in modules if module.split(".")[0] == "hookline"]
    return {parts[1] if len(parts) > 1 else "__init__" for parts in names}


def test_imports_go_down_the_layers_only():
    for path in ROOT.rglob("*.py"):
        file = path.relative_to(ROOT)
        layer = file.parts[0].removesuffix(".py")
        for other in imported(path):
            down = LAYERS.index(other) <= LAYERS.index(layer)
            assert down or (str(file), other) == DOOR, f"{path} imports {other}"


def test_files_of_compare_import_down_only():
    """Tuples of files of one height, the lowest first; a result writes its document when it is saved."""
    heights = [
        ("recorded", "inputs", "randomness", "rounded_model"),
        ("difference", "tolerances", "arguments"),
        ("calls", "buffers", "weight_gradients", "weights", "causes", "rounding", "diff_document"),
        ("callers", "culprits", "model_run", "isolate"),
        ("noise", "explain", "notes"),
        ("assemble",),
        ("models", "runs"),
    ]
    height = {name: place for place, names in enumerate(heights) for name in names}
    assert {path.stem for path in (ROOT / "compare").glob("*.py")} - {"__init__"} == height.keys()
    for name in height:
        tree = ast.parse((ROOT / "compare" / f"{name}.py").read_text())
        modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        for other in [module.split(".")[2] for module in modules if module.startswith("hookline.compare.")]:
            saving = (name, other) == ("difference", "diff_document")
            assert height[other] < height[name] or saving, f"{name} imports {other}"


def test_result_is_a_leaf():
    assert imported(ROOT / "result.py") <= {"errors", "messages", "torch_private", "report"}


def test_no_tool_imports_another():
    for path in (ROOT / "tools").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            assert not module.startswith("hookline.tools"), path
