"""Tests that tables fit what they are shown on: names stay, whatever the width and the encoding."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import hookline
from hookline import edits
from hookline.report.text import render

NAME = "a_module_of_a_rather_long_name"


def named() -> nn.Module:
    net = nn.Sequential()
    net.add_module(NAME, nn.Linear(2, 2))
    net.add_module("end", nn.ReLU())
    return net


def watched() -> Any:
    net = named()
    with hookline.watch(net, grads="input") as run:
        net(torch.ones(1, 2, requires_grad=True)).sum().backward()
    return run


def compared() -> Any:
    torch.manual_seed(0)
    return hookline.diff(named(), named(), torch.ones(1, 2))


def swept() -> Any:
    return hookline.sweep(named(), "**", edits.zero(), lambda output, _: output.sum(), [torch.ones(1, 2)])


def broken() -> nn.Module:
    net = named()
    nn.init.constant_(net.get_submodule(NAME).weight, float("nan"))
    return net


def hooked() -> Any:
    net = named()
    net.get_submodule(NAME).register_forward_hook(lambda *_: None)
    return hookline.hooks(net)


RESULTS: dict[str, Callable[[], Any]] = {
    "run": watched,
    "profile": lambda: hookline.profile(named(), torch.ones(1, 2), repeat=1),
    "diff": compared,
    "sweep": swept,
    "findings": lambda: hookline.check(broken(), torch.ones(1, 2)),
    "hooks": hooked,
}


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("result", RESULTS)
def test_names_stay_in_a_narrow_table(result: str, width: int) -> None:
    assert NAME in render(RESULTS[result]().__rich__(), width=width)


@pytest.mark.parametrize("width", [60, 200])
def test_what_is_left_out_is_named(width: int) -> None:
    shown = render(RESULTS["profile"]().__rich__(), width=width)

    assert ("too narrow for" in shown) == (width == 60)


def test_lines_are_no_wider_than_they_may_be() -> None:
    assert max(map(len, render(watched().__rich__(), width=60).splitlines())) <= 60


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("command", ["watch", "profile"])
def test_the_command_line_prints_in_any_encoding(command: str, encoding: str) -> None:
    known = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "100"}
    done = subprocess.run([sys.executable, "-m", "hookline", command], env=known, capture_output=True)

    assert (done.returncode, done.stderr) == (0, b"")
    assert "convolution" in done.stdout.decode(encoding)


@pytest.mark.slow
def test_a_result_is_printed_in_latin_1() -> None:
    program = "import torch, hookline\nprint(hookline.profile(torch.nn.Linear(2, 2), torch.ones(1, 2)))"
    known = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", program], env=known, capture_output=True)

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"100%" in done.stdout
