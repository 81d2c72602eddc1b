"""Tests of `hookline monitor`."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import hookline
from hookline.cli.app import app
from hookline.cli.serving import server_of

Invoke = Callable[..., Any]


@pytest.fixture
def invoke() -> Invoke:
    return lambda *words: CliRunner().invoke(app, ["monitor", *map(str, words)])


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str = "run", *, spike: int = 12) -> Path:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with hookline.monitor(model, optimizer, every=1, of="output", to=tmp_path / name):
            for step in range(15):
                model(torch.ones(2, 4) * (100 if step == spike else 1)).mean().backward()
                optimizer.step()
        return tmp_path / name

    return make


def test_run_is_printed_as_a_table(invoke: Invoke, run: Callable[..., Path]) -> None:
    result = invoke(run())
    assert result.exit_code == 0
    assert "12 series of 4 paths, 15 samples up to step 14" in result.output


def test_json_is_that_of_the_result(invoke: Invoke, run: Callable[..., Path]) -> None:
    folder = run()
    assert json.loads(invoke(folder, "--json").output) == hookline.load(folder).to_dict()


def test_step_is_explained(invoke: Invoke, run: Callable[..., Path]) -> None:
    first = invoke(run(), "--around", 12).output.splitlines()[0]
    assert first.startswith("step 12: ")


def test_two_runs_are_compared_by_step(invoke: Invoke, run: Callable[..., Path]) -> None:
    result = invoke(run("a"), run("b", spike=9))
    assert result.output.startswith("step 9: ")


def test_equal_runs_do_not_differ(invoke: Invoke, run: Callable[..., Path]) -> None:
    assert invoke(run("a"), run("b")).output == "no figure differs at the steps that both have\n"


def test_page_has_both_runs(invoke: Invoke, run: Callable[..., Path], tmp_path: Path) -> None:
    page = tmp_path / "both.html"
    assert invoke(run("a"), run("b"), "--page", page).exit_code == 0
    (data,) = [line for line in page.read_text().splitlines() if "hookline-data" in line and "<script" in line]
    document = json.loads(data.partition(">")[2].rpartition("</script>")[0])
    assert [each["name"] for each in document["runs"]] == [str(tmp_path / "a"), str(tmp_path / "b")]


def test_page_is_served_anew_for_each_request(run: Callable[..., Path]) -> None:
    pages = iter(["<p>one", "<p>two"])
    server = server_of(0, lambda: next(pages))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    try:
        assert [urllib.request.urlopen(address).read() for _ in range(2)] == [b"<p>one", b"<p>two"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address + "other")
    finally:
        server.shutdown()
        server.server_close()


def test_folder_of_something_else_is_an_error(invoke: Invoke, tmp_path: Path) -> None:
    with hookline.watch(nn.Linear(1, 1)) as watched:
        pass
    watched.save(tmp_path / "saved")
    result = invoke(tmp_path / "saved")
    assert result.exit_code == 2
    assert "holds a Run, and no run of a monitor" in result.output


def test_three_folders_are_too_many(invoke: Invoke, run: Callable[..., Path]) -> None:
    folder = run()
    assert "one folder, or two to compare, not 3" in invoke(folder, folder, folder).output


def test_same_folder_twice_is_an_error(invoke: Invoke, run: Callable[..., Path]) -> None:
    folder = run()
    assert "both folders are the same" in invoke(folder, folder).output


def test_port_that_cannot_be_used_is_an_error(invoke: Invoke, run: Callable[..., Path]) -> None:
    result = invoke(run(), "--serve", 99999)
    assert result.exit_code == 2
    assert "cannot serve at port 99999" in result.output
