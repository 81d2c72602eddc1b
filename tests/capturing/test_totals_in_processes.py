"""Several processes come to the totals of one, bit for bit."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hookline

WORLD = Path(__file__).with_name("world_totals.py")


def run(how: str, folder: Path, processes: int) -> subprocess.CompletedProcess[str]:
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    return subprocess.run([sys.executable, *launcher, WORLD, how, folder], capture_output=True, text=True, timeout=200)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    done = run("alone", folder, 1)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "0"


@pytest.mark.slow
@pytest.mark.parametrize(("how", "processes"), [("plain", 2), ("plain", 3), ("ddp", 2)])
def test_every_process_has_the_bits_of_one(alone: Path, tmp_path: Path, how: str, processes: int) -> None:
    done = run(how, tmp_path, processes)
    assert done.returncode == 0, done.stderr[-3000:]

    for rank in range(processes):
        assert content(tmp_path / str(rank)) == content(alone)


@pytest.mark.slow
def test_model_that_is_spread_over_processes_is_run_in_step(alone: Path, tmp_path: Path) -> None:
    done = run("sharded", tmp_path, 2)
    assert done.returncode == 0, done.stderr[-3000:]
    found, plain = hookline.load(tmp_path / "1"), hookline.load(alone)

    assert found.examples == plain.examples == 40
    assert found.finished
    torch.testing.assert_close(found["1"].covariance, plain["1"].covariance, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_rank_with_other_data_is_an_error(tmp_path: Path) -> None:
    done = run("other data", tmp_path, 2)

    assert done.returncode != 0
    assert "rank 1 has other data than rank 0" in done.stderr


@pytest.mark.slow
def test_part_of_a_tensor_in_each_process_is_an_error(tmp_path: Path) -> None:
    done = run("parts", tmp_path, 2)

    assert done.returncode != 0
    assert "the rows of '0' differ between the processes over which the model is spread" in done.stderr
