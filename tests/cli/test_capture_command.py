"""Tests of `hookline capture`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import hookline
from hookline.cli.app import app

FILES = {
    "net.py": """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 3)

    def forward(self, x, mask=None):
        return self.inner(x)

torch.manual_seed(0)
net = Net()
rows = [{"name": f"n{number}", "x": [[number, 1.0]] * 3, "mask": [1, number % 2, 0]} for number in range(6)]

def call(batch):
    return {"x": torch.tensor(batch["x"]), "mask": torch.tensor(batch["mask"])}

def fails(batch):
    raise RuntimeError("no inputs")
""",
    "rows.jsonl": '{"x": [1.0, 2.0]}\n{"x": [3.0, 4.0]}\n',
    "rows.json": '[{"x": [1.0, 2.0]}, {"x": [3.0, 4.0]}]',
    "rows.csv": "x\n1\n2\n",
    "rows.txt": "one\ntwo\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["capture", *map(str, arguments)])


def test_demo_is_captured() -> None:
    result = run("--where", "stem", "--to", "acts")

    assert result.exit_code == 0, result.stderr
    assert "stem" in result.stdout
    assert hookline.open("acts").finished


def test_rows_of_a_mask_are_captured_with_their_ids() -> None:
    result = run(
        "net.py:net", "--data", "net.py:rows", "--call", "net.py:call", "--where", "inner", "--mask", "mask",
        "--id", "name", "--to", "acts", "--dtype", "bfloat16", "--json",
    )  # fmt: skip

    acts = hookline.open("acts")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["points"][0]["rows"] == 9
    assert [len(acts["inner"][number]) for number in range(6)] == [1, 2, 1, 2, 1, 2]
    assert acts.ids[3] == "n3"
    assert acts["inner"].dtype == torch.bfloat16


def test_same_command_again_finds_it_done() -> None:
    first, second = run("--where", "stem", "--to", "acts"), run("--where", "stem", "--to", "acts")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert first.stdout == second.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "nothing", "--to", "acts"], "'nothing' matches none"),
        (["net.py:net", "--data", "missing.csv", "--where", "inner", "--to", "acts"], "no data 'missing.csv'"),
        (["net.py:net", "--data", "net.py", "--where", "inner", "--to", "acts"], "cannot read net.py as a data set"),
        (["--where", "stem", "--to", "acts", "--call", "nothing"], "--call takes a function"),
        (["--where", "stem", "--to", "acts", "--batch", "0"], "batch must be a whole number from 1"),
        (["--where", "stem", "--to", "."], "and no capture; give an empty or a new folder"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_model_that_raises_is_exit_code_1() -> None:
    result = run("net.py:net", "--data", "net.py:rows", "--call", "net.py:fails", "--where", "inner", "--to", "acts")

    assert result.exit_code == 1
    assert "no inputs" in result.stderr


@pytest.mark.parametrize(("name", "count"), [("rows.jsonl", 2), ("rows.json", 2), ("rows.csv", 2), ("rows.txt", 2)])
def test_files_of_rows_are_read(name: str, count: int) -> None:
    from hookline.cli.data import load_data

    assert len(load_data(name)) == count


def test_arrays_are_read(folder: Path) -> None:
    import numpy
    from safetensors.torch import save_file

    from hookline.cli.data import load_data

    numpy.save(folder / "x.npy", numpy.ones((3, 2)))
    save_file({"x": torch.ones(4, 2)}, folder / "x.safetensors")

    assert load_data("x.npy").shape == (3, 2)
    assert load_data("x.safetensors").shape == (4, 2)
