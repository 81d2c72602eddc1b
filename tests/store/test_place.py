"""Tests that a saved folder is replaced at once: whoever is killed or reads meanwhile has the old one or the new one."""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from hookline import StoreError
from hookline.store import place, staging
from hookline.store.folder import read, write

SAVER = Path(__file__).with_name("saver.py")
WAYS = ["swapped", "in turn"]


@contextmanager
def saver(folder: Path, times: int, way: str) -> Iterator["subprocess.Popen[str]"]:
    """The program while it runs, from when it has saved once; killed at the end."""
    command = [sys.executable, str(SAVER), str(folder), str(times), way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "saved\n"
            yield program
        finally:
            program.kill()


def expect_whole(folder: Path) -> None:
    document, tensors = read(folder)
    assert torch.equal(tensors["a"], torch.full((1000,), float(document["name"]), dtype=torch.float64))


def unable(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "in turn":
        monkeypatch.setattr(place, "exchange", lambda one, other: False)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_killed_save_leaves_a_whole_run(tmp_path: Path, way: str) -> None:
    for _ in range(3):
        with saver(tmp_path / "run", 0, way):
            for _ in range(20):
                expect_whole(tmp_path / "run")
            time.sleep(random.uniform(0, 0.02))
        expect_whole(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_next_save_sweeps_what_killed_ones_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    for _ in range(2):
        with saver(tmp_path / "run", 0, way):
            time.sleep(0.01)
    unable(monkeypatch, way)

    write(tmp_path / "run", {"name": 1}, {})

    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_several_processes_save_to_one_folder(tmp_path: Path, way: str) -> None:
    with ExitStack() as stack:
        programs = [stack.enter_context(saver(tmp_path / "run", 60, way)) for _ in range(3)]
        while any(program.poll() is None for program in programs):
            expect_whole(tmp_path / "run")

    assert [program.returncode for program in programs] == [0, 0, 0]
    assert os.listdir(tmp_path) == ["run"]


def test_a_living_writer_is_not_swept(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with staging.staging(target) as folder:
        write(target, {"name": 1}, {})

        assert folder.is_dir()


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = tempfile.mkdtemp

    def swept_at_once(**options: Any) -> str:
        folder = make(**options)
        monkeypatch.setattr(tempfile, "mkdtemp", make)
        staging.sweep(tmp_path / "run")
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", swept_at_once)
    write(tmp_path / "run", {"name": 1}, {})

    assert os.listdir(tmp_path) == ["run"]


def interrupted(target: Path) -> None:
    """What a process leaves that is killed between the two steps of replacing a folder in turn."""
    stage = target.with_name(f"{staging._prefix(target)}killed")
    stage.mkdir()
    target.rename(stage / staging.OLD)


def test_a_run_whose_replacement_was_killed_is_read(tmp_path: Path) -> None:
    write(tmp_path / "run", {"name": 1}, {})
    interrupted(tmp_path / "run")

    assert read(tmp_path / "run")[0]["name"] == 1


def test_failing_save_restores_a_run_whose_replacement_was_killed(tmp_path: Path) -> None:
    write(tmp_path / "run", {"name": 1}, {})
    interrupted(tmp_path / "run")

    with pytest.raises(StoreError):
        write(tmp_path / "run", {"name": object()}, {})

    assert os.listdir(tmp_path) == ["run"]


def test_what_another_folder_left_is_not_swept(tmp_path: Path) -> None:
    write(tmp_path / "run", {"name": 1}, {})
    interrupted(tmp_path / "run")

    write(tmp_path / "other", {"name": 2}, {})

    assert read(tmp_path / "run")[0]["name"] == 1


@pytest.mark.parametrize("error", [OSError("not now"), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
def test_a_replacement_in_turn_that_fails_leaves_the_old_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    write(tmp_path / "run", {"name": 1}, {})
    unable(monkeypatch, "in turn")
    rename = os.rename

    def failing(one: Path, other: Path) -> None:
        rename(one, other)
        if Path(one).name == "run":
            monkeypatch.setattr(os, "rename", raising)

    def raising(one: Path, other: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        raise error

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises((StoreError, KeyboardInterrupt)):
        write(tmp_path / "run", {"name": 2}, {})

    assert os.listdir(tmp_path) == ["run"]
    assert read(tmp_path / "run")[0]["name"] == 1
