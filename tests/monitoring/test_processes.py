"""A monitor of several processes has the figures of one that trains on all of the batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hookline

WORLD = Path(__file__).with_name("world.py")
pytestmark = pytest.mark.slow


def run(how: str, folder: Path, processes: int) -> None:
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    done = subprocess.run([sys.executable, *launcher, WORLD, how, folder], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> hookline.Monitor:
    folder = tmp_path_factory.mktemp("alone")
    run("alone", folder, 1)
    return hookline.load(folder / "rank0")


@pytest.mark.parametrize("how", ["ddp", "fsdp"])
def test_two_processes_measure_what_one_does(alone: hookline.Monitor, tmp_path: Path, how: str) -> None:
    run(how, tmp_path, 2)
    monitor = hookline.load(tmp_path / "rank0")
    assert monitor.names == alone.names
    for mine, theirs in zip(monitor, alone, strict=True):
        assert mine.steps.tolist() == theirs.steps.tolist()
        if mine.of == "grad":  # each process divides its loss by its own part of the batch
            factor = 2.0 if mine.figure != "zeros" else 1.0
            torch.testing.assert_close(mine.mean, theirs.mean * factor, rtol=1e-4, atol=1e-6)
        else:
            torch.testing.assert_close(mine.mean, theirs.mean, rtol=1e-4, atol=1e-6, msg=repr(mine))


def test_every_process_has_the_same_figures_and_one_writes(tmp_path: Path) -> None:
    run("ddp", tmp_path, 2)
    first, second = (hookline.load(tmp_path / f"rank{rank}") for rank in (0, 1))
    assert first.to_json() == second.to_json()
    assert len([*(tmp_path / "run").glob("part-*")]) == 1
