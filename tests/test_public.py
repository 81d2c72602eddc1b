"""What is public, and what importing hookline does: nothing."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import hookline

IMPORT = """
import asyncio, gc, sys, threading, warnings
import torch, torch.nn.modules.module as m

def everything():
    return {
        "call": torch.nn.Module.__call__,
        "Module": dict(vars(torch.nn.Module)),
        "Tensor": dict(vars(torch.Tensor)),
        "hooks": [list(getattr(m, name)) for name in vars(m) if name.startswith("_global") and name.endswith("hooks")],
        "excepthook": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "filters": list(warnings.filters),
        "random": torch.get_rng_state().tolist(),
        "threads": threading.active_count(),
        "gc": (gc.isenabled(), gc.get_threshold(), list(gc.callbacks)),
        "path": list(sys.path),
        "grad": torch.is_grad_enabled(),
    }

before = everything()
import hookline
after = everything()
assert after == before, {key for key in before if after[key] != before[key]}
assert not {"pandas", "transformers", "numpy.testing", "torch._dynamo"} & set(sys.modules)
print("quiet")
"""


PUBLIC_MODULES = ("edits",)
ALIASES = {
    name
    for name in hookline.__all__
    if not isinstance(value := getattr(hookline, name), type | types.ModuleType | types.FunctionType | list)
}


def test_all_is_what_can_be_imported():
    helpers = {"Any", "ON_DEMAND", "TYPE_CHECKING", "import_module"}
    public = {
        name
        for name, value in vars(hookline).items()
        if not name.startswith("_") and (name in PUBLIC_MODULES or not isinstance(value, types.ModuleType))
    }
    assert public - helpers <= set(hookline.__all__)
    assert all(hasattr(hookline, name) for name in hookline.__all__)
    assert hookline.__all__ == sorted(hookline.__all__)


@pytest.mark.slow
def test_importing_hookline_changes_nothing_anywhere():
    result = subprocess.run([sys.executable, "-W", "error", "-c", IMPORT], capture_output=True, text=True, check=False)
    assert result.stdout == "quiet\n", result.stderr


def test_every_public_name_has_a_docstring():
    for name in {*hookline.__all__} - ALIASES:
        assert getattr(hookline, name).__doc__, name


def test_every_type_alias_is_on_the_page_of_types():
    page = (Path(__file__).parent.parent / "docs" / "reference" / "types.md").read_text()
    assert {*re.findall(r"^::: hookline\.(\w+)$", page, re.MULTILINE)} == ALIASES


@pytest.mark.slow
def test_importing_hookline_without_numpy_warns_of_nothing(tmp_path):
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('no numpy here', name='numpy')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    known = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", "import hookline"], env=known, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
