"""Several processes share a capture."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hookline

WORLD = Path(__file__).with_name("world.py")


def started(how: str, folder: Path, processes: int) -> subprocess.CompletedProcess[str]:
    launcher = [] if processes == 1 else ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command = [sys.executable, *launcher, WORLD, how, folder]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def run(how: str, folder: Path, processes: int) -> None:
    done = started(how, folder, processes)
    assert done.returncode == 0, done.stderr[-3000:]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    run("alone", folder, 1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ddp", "plain"])
def test_two_processes_write_what_one_writes(alone: Path, tmp_path: Path, how: str) -> None:
    run(how, tmp_path, 2)

    assert content(tmp_path) == content(alone)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sharded", "tensor"])
def test_model_that_is_spread_over_two_processes_is_captured_once(alone: Path, tmp_path: Path, how: str) -> None:
    run(how, tmp_path, 2)
    acts, plain = hookline.open(tmp_path), hookline.open(alone)

    assert acts.finished
    assert [point.path for point in acts] == (["0", "1"] if how == "sharded" else ["0", "1", "2"])
    for path in ("0", "1"):
        torch.testing.assert_close(torch.stack([*acts[path]]), torch.stack([*plain[path]]))


@pytest.mark.slow
def test_part_of_a_tensor_in_each_process_is_an_error(tmp_path: Path) -> None:
    done = started("parts", tmp_path, 2)

    assert done.returncode != 0
    assert "the rows of '0' differ between the processes over which the model is spread" in done.stderr
    assert not any((tmp_path / "units").iterdir())
