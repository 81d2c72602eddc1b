"""Launches the program of this folder once, in two processes, and reads what each wrote down."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
RANKS = 2


@pytest.fixture(scope="session")
def facts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank wrote, by rank."""
    folder = tmp_path_factory.mktemp("facts")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    paths = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    surroundings = {**os.environ, "FACTS": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [*launch, str(HERE / "program.py")], env=surroundings, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.fixture(scope="session")
def trainings(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [own["trainings"] for own in facts]
