"""The programs of the guide to many processes run as it says: under torchrun, in a Slurm array, in Ray."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

import hookline
import hookline.demo

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "capture-many-processes.md"
PROGRAMS = dict(re.findall(r"```(?:python|py)\n(?:# (\w+\.py)\n)(.*?)```", GUIDE.read_text(), re.DOTALL))
SUMMARY = "DigitReader: 2 points, 400 examples, 800 rows, 1.7 MB"
pytestmark = pytest.mark.slow


def begun(folder: Path, *command: str, program: str = "capture.py", **variables: str) -> subprocess.Popen[str]:
    """A program of the guide as a process in a folder, on one thread."""
    (folder / program).write_text(PROGRAMS[program])
    known = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "RANK", "WORLD_SIZE"))}
    return subprocess.Popen(
        [sys.executable, *command, program],
        cwd=folder,
        env={**known, "OMP_NUM_THREADS": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(*processes: subprocess.Popen[str]) -> list[str]:
    """What each printed."""
    found = [process.communicate(timeout=200) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), found[0][1][-3000:]
    return [out for out, _ in found]


def content(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "acts").rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    folder = tmp_path_factory.mktemp("alone")
    assert SUMMARY in ended(begun(folder))[0]
    return content(folder)


# torchrun


def torchrun(*options: str) -> tuple[str, ...]:
    return ("-m", "torch.distributed.run", *options)


def test_torchrun_on_one_machine(alone: Mapping[str, bytes], tmp_path: Path) -> None:
    (printed,) = ended(begun(tmp_path, *torchrun("--nproc-per-node=2")))

    assert printed.count(SUMMARY) == 2
    assert content(tmp_path) == alone


def test_torchrun_on_two_machines(alone: Mapping[str, bytes], tmp_path: Path) -> None:
    from torch.distributed.elastic.utils.distributed import get_free_port

    where = ("--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{get_free_port()}", "--rdzv-id=guide")
    machine = torchrun("--nnodes=2", "--nproc-per-node=1", *where)
    printed = ended(begun(tmp_path, *machine), begun(tmp_path, *machine))

    assert [text.count(SUMMARY) for text in printed] == [1, 1]
    assert content(tmp_path) == alone


@pytest.mark.parametrize("processes", [1, 2])
def test_sharded_model_is_written_whole(alone: Mapping[str, bytes], tmp_path: Path, processes: int) -> None:
    ended(begun(tmp_path, *torchrun(f"--nproc-per-node={processes}"), program="sharded.py"))
    model, (images, _) = hookline.demo.model(), hookline.demo.digits()

    acts = hookline.open(tmp_path / "acts")
    assert acts.finished
    with hookline.watch(model, "attention", keep="copy") as run, torch.no_grad():
        model(images)
    torch.testing.assert_close(torch.stack([*acts["attention"]]), run["attention"].output.value, atol=1e-4, rtol=1e-4)


def test_tensor_parallel_program_writes_all_features(tmp_path: Path) -> None:
    ended(begun(tmp_path, *torchrun("--nproc-per-node=2"), program="tensor_parallel.py"))

    assert hookline.open(tmp_path / "acts").finished


# Slurm


@pytest.mark.parametrize(
    "names",
    [
        ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
        ("SLURM_PROCID", "SLURM_NTASKS"),
        ("SLURM_JOB_ID", "SLURM_NNODES"),
    ],
    ids=["array", "tasks", "neither"],
)
def test_tasks_of_slurm_share_the_work(alone: Mapping[str, bytes], tmp_path: Path, names: tuple[str, str]) -> None:
    tasks = [begun(tmp_path, **dict(zip(names, (str(number), "3"), strict=True))) for number in range(3)]

    assert all(SUMMARY in printed for printed in ended(*tasks))
    assert content(tmp_path) == alone


def test_task_that_begins_when_all_is_done_ends(alone: Mapping[str, bytes], tmp_path: Path) -> None:
    task = {"SLURM_ARRAY_TASK_COUNT": "2"}
    ended(begun(tmp_path, SLURM_ARRAY_TASK_ID="1", **task))
    ended(begun(tmp_path, SLURM_ARRAY_TASK_ID="0", **task))

    assert content(tmp_path) == alone


def test_preempted_task_continues_when_it_is_requeued(alone: Mapping[str, bytes], tmp_path: Path) -> None:
    task = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    preempted = begun(tmp_path, **task)
    until = time.monotonic() + 100
    while not [*(tmp_path / "acts" / "units").glob("*.json")] and time.monotonic() < until:
        time.sleep(0.001)
    preempted.send_signal(signal.SIGTERM)
    preempted.communicate(timeout=100)

    assert preempted.returncode == -signal.SIGTERM
    assert not hookline.open(tmp_path / "acts").finished
    ended(begun(tmp_path, **task))
    assert content(tmp_path) == alone


def test_array_is_a_script_that_bash_can_read(tmp_path: Path) -> None:
    (script,) = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", GUIDE.read_text(), re.DOTALL)

    assert "#SBATCH --array=0-15\n" in script
    assert script.splitlines()[-1] == "python capture.py"
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


# Ray


@pytest.mark.filterwarnings("ignore")  # of Ray itself
def test_ray_program_stores_every_example_once(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    PROGRAMS["ray_data.py"] = PROGRAMS["ray_data.py"].replace("/tmp/hookline-checkpoint", str(tmp_path / "done"))
    first, second = (ended(begun(tmp_path, program="ray_data.py"))[0] for _ in range(2))

    assert "400 examples" in first
    assert "400 examples" in second


# Object stores


class Vault(MemoryFileSystem):
    """A store that asks for a key."""

    protocol = "vault"
    cachable = False

    def __init__(self, key: str | None = None, **options: str) -> None:
        super().__init__(**options)
        if key != "ours":
            raise PermissionError("the vault needs a key")


@pytest.fixture
def vault() -> Iterator[None]:
    fsspec.register_implementation("vault", Vault, clobber=True)
    yield
    fsspec.config.conf.pop("vault", None)
    fsspec.filesystem("memory").rm("/", recursive=True)


@pytest.mark.parametrize("by", ["configuration", "environment"])
def test_credentials_are_those_of_fsspec(vault: None, by: str) -> None:
    model, data = torch.nn.Sequential(torch.nn.Linear(3, 2)).eval(), torch.ones(8, 3)
    url = f"vault://{by}"
    with pytest.raises((PermissionError, hookline.StoreError), match="the vault needs a key"):
        hookline.capture(model, data, "0", to=url, progress=False)
    if by == "environment":
        fsspec.config.set_conf_env(fsspec.config.conf, {"FSSPEC_VAULT_KEY": "ours"})
    else:
        fsspec.config.conf["vault"] = {"key": "ours"}
    hookline.capture(model, data, "0", to=url, progress=False)

    assert hookline.open(url).finished
