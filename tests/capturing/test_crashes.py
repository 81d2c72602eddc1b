"""Captures whose processes are killed come to the same bytes as one that nobody disturbed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CRASHES = Path(__file__).with_name("crashes.py")


def crashes(*given: Any) -> dict[str, Any]:
    done = subprocess.run([sys.executable, CRASHES, *map(str, given)], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_kill_after_any_write_sync_or_rename_loses_nothing(tmp_path: Path) -> None:
    told = crashes("faults", tmp_path)

    assert told["differ"] == []
    assert told["faults"] > 40


@pytest.mark.slow
def test_random_kills_of_one_two_and_four_processes_lose_nothing(tmp_path: Path) -> None:
    told = crashes("kills", tmp_path, 20, 0)

    assert told["differ"] == []
    assert told["kills"] == 20
