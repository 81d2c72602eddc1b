"""Tests that whatever is given to a command that it cannot use is told in one line, with exit code 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from hookline.cli.app import app
from hookline.testing import recorded, toy

NAMES = {
    "missing": "missing",
    "nested": "missing/below",
    "folder": "folder",
    "pipe": "pipe",
    "pipe.py": "pipe.py:net",
    "pipe.json": "pipe.json",
    "zero": "zero",
    "zero.py": "zero.py:net",
    "zero.json": "zero.json",
    "zero.safetensors": "zero.safetensors",
    "zero.pt": "zero.pt",
    "binary": "binary",
    "binary.py": "binary.py:net",
    "binary.json": "binary.json",
    "binary.npz": "binary.npz",
    "binary.pt": "binary.pt",
    "binary.safetensors": "binary.safetensors",
    "folder.json": "folder.json",
    "folder.py": "folder.py:net",
    "long": "x" * 300,
    "long.py": "x" * 300 + ".py:net",
    "long.json": "x" * 300 + ".json",
    "deep": "x/" * 3000,
    "NUL": "a\0b",
    "NUL.py": "a\0b.py:net",
    "NUL.json": "a\0b.json",
    "surrogate": "a\ud800b",
    "surrogate.py": "a\udc80b.py:net",
    "surrogate.json": "a\ud800b.json",
    "user": "~nosuchuser/run",
    "user.json": "~nosuchuser/run.json",
    "empty": "",
    "colon": ":",
    "escape": "a\x1b[31mb\nc",
    "escape.py": "a\x1b[31mb\nc.py:net",
    "relative": "..:net",
    "huge number": "float32[" + "9" * 5000 + "]",
    "large number": "float32[9999999999999999999]",
    "damaged": "damaged",
    "pipes": "pipes",
    "devices": "devices",
    "surrogates": "surrogates",
}
COMMANDS = {
    "watch": ["watch", "IT"],
    "watch --inputs": ["watch", "demo", "--inputs", "IT"],
    "check": ["check", "IT"],
    "hooks": ["hooks", "IT"],
    "profile": ["profile", "IT"],
    "profile --inputs": ["profile", "demo", "--inputs", "IT"],
    "diff": ["diff", "IT", "IT"],
    "diff with a run": ["diff", "run", "IT"],
    "diff with a model": ["diff", "demo", "IT"],
    "diff --inputs": ["diff", "demo", "demo", "--inputs", "IT"],
    "report": ["report", "IT"],
}
WRITING = {
    "watch --save": ["watch", "demo", "--save", "IT"],
    "diff --save": ["diff", "demo", "demo", "--save", "IT"],
    "check --save": ["check", "demo", "--save", "IT"],
    "profile --save": ["profile", "demo", "--save", "IT"],
    "hooks --save": ["hooks", "demo", "--save", "IT"],
    "hooks --page": ["hooks", "demo", "--page", "IT"],
    "watch --page": ["watch", "demo", "--page", "IT"],
    "profile --trace": ["profile", "demo", "--trace", "IT"],
    "report --page": ["report", "run", "--page", "IT"],
}
UNWRITABLE = [
    "folder.json",
    "pipe",
    "pipe.json",
    "zero",
    "zero.json",
    "long",
    "long.json",
    "deep",
    "NUL",
    "NUL.json",
    "surrogate",
    "surrogate.json",
    "pipes",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("folder", "folder.json", "folder.py", "pipes", "devices"):
        (folder / name).mkdir()
    (folder / "folder.json" / "inside").touch()
    for name in ("pipe", "pipe.py", "pipe.json", "pipes/run.json", "pipes/diff.json", "pipes/config.json"):
        os.mkfifo(folder / name)
    for name in ("zero", "zero.py", "zero.json", "zero.pt", "zero.safetensors", "devices/run.json"):
        (folder / name).symlink_to("/dev/zero")
    for name in ("binary", "binary.py", "binary.json", "binary.npz", "binary.pt", "binary.safetensors"):
        (folder / name).write_bytes(bytes(range(256)))
    run_of = recorded(toy(), torch.ones(1, 4))
    run_of.save(folder / "run")
    document = json.loads((folder / "run" / "run.json").read_text())
    for name, change in (("damaged", {"calls": [3]}), ("surrogates", {"model": 3, "\ud800": 1})):
        (folder / name).mkdir()
        (folder / name / "run.json").write_text(json.dumps({**document, **change}))
    return folder


def expect_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("hookline: ")
    assert "not expected here" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", COMMANDS)
def test_bad_input_is_one_line_and_exit_code_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    expect_one_line(folder, monkeypatch, [NAMES[name] if part == "IT" else part for part in COMMANDS[command]])


@pytest.mark.parametrize("name", UNWRITABLE)
@pytest.mark.parametrize("command", WRITING)
def test_unwritable_file_exits_2_with_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    expect_one_line(folder, monkeypatch, [NAMES[name] if part == "IT" else part for part in WRITING[command]])


@pytest.mark.slow
@pytest.mark.slow
def test_closed_pipe_does_not_exit_as_a_difference(folder: Path) -> None:
    program = [sys.executable, "-m", "hookline", "diff", "run", "run", "--json"]
    with subprocess.Popen(program, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        told = running.stderr.read()

    assert (running.returncode, told) == (141, b"")


def test_unexpected_error_does_not_exit_as_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("of ours")

    monkeypatch.setattr("hookline.cli.sources.load", broken)
    result = CliRunner().invoke(app, ["watch"])

    assert result.exit_code == 2
    assert result.stderr.startswith("hookline: KeyError: 'of ours' (not expected here; HOOKLINE_TRACEBACK=1 shows")


def test_model_that_exits_counts_as_raising(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import sys\nfrom torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        sys.exit(0)\n"
    )
    result = CliRunner().invoke(app, ["watch", f"{tmp_path / 'net.py'}:Net", "--inputs", "float32[1]"])

    assert result.exit_code == 1
    assert "the model raised SystemExit: 0" in result.stderr


def test_saving_onto_a_run_says_that_it_replaces_it(tmp_path: Path) -> None:
    arguments = ["watch", "demo", "--save", str(tmp_path / "run")]
    first, second = (CliRunner().invoke(app, arguments).stderr for _ in range(2))

    assert first == f"saved to {tmp_path / 'run'}\n"
    assert second == f"saved to {tmp_path / 'run'}, replacing the run saved there\n"


@pytest.mark.parametrize("command", [["report", "IT"], ["check", "IT"], ["diff", "IT", "run"]], ids=" ".join)
def test_stored_tensors_of_another_shape_are_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    recorded(toy(), torch.ones(1, 4), keep="copy").save(tmp_path / "reshaped")
    path = tmp_path / "reshaped" / "tensors.safetensors"
    save_file({name: torch.ones(7) for name in load_file(path)}, path)

    expect_one_line(folder, monkeypatch, [str(path.parent) if part == "IT" else part for part in command])
