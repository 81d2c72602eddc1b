"""Tests of `hookline totals`."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import hookline
from hookline.cli.app import app

NET = """
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
"""
OWN = ("net.py:net", "--data", "net.py:rows", "--call", "net.py:call", "--where", "inner", "--mask", "mask")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["totals", *map(str, arguments)])


def test_demo_is_added_up(folder: Path) -> None:
    result = run("--where", "stem", "--quantiles", "--page", "totals.html")

    assert result.exit_code == 0, result.stderr
    assert "400 examples" in result.stdout
    assert "histogram" in (folder / "totals.html").read_text()


def test_saved_totals_have_what_was_asked_for() -> None:
    result = run(*OWN, "--id", "name", "--covariance", "--quantiles", "--top", 2, "--save", "totals", "--json")

    found = hookline.load("totals")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == found.to_dict()
    assert found["inner"].rows == 9
    assert found["inner"].covariance.shape == (3, 3)
    assert {*found.ids.values()} <= {f"n{number}" for number in range(6)}


def test_saved_parts_are_the_whole() -> None:
    whole = run(*OWN, "--batch", 2, "--save", "whole")
    parts = [run(*OWN, "--batch", 2, "--part", f"{number}/2", "--save", f"part{number}") for number in range(2)]

    assert [each.exit_code for each in (whole, *parts)] == [0, 0, 0]
    assert (hookline.load("part1") + hookline.load("part0")).to_dict() == hookline.load("whole").to_dict()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "nothing"], "'nothing' matches none"),
        (["--where", "stem", "--part", "3"], "--part takes N/OF, such as 2/8, not '3'"),
        (["--where", "stem", "--part", "2/2"], "part must be (number, of)"),
        (["--where", "stem", "--top", "0"], "top must be a whole number from 1"),
        (["--where", "stem", "--save", "."], "exists and is not a saved totals"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_model_that_raises_is_exit_code_1() -> None:
    result = run("net.py:net", "--data", "net.py:rows", "--call", "net.py:fails", "--where", "inner")

    assert result.exit_code == 1
    assert "no inputs" in result.stderr
