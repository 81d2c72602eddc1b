"""summary: one run, printed as a table of layers."""

import pytest
import torch
from torch import nn

import hookline
from hookline.testing import assert_unhooked

X = torch.ones(3, 4)


def model() -> nn.Sequential:
    shared = nn.Linear(4, 4)
    frozen = nn.Linear(4, 2).requires_grad_(False)
    return nn.Sequential(shared, nn.Sequential(shared), frozen)


def test_summary_returns_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    net = model()
    run = hookline.summary(net, X)

    assert [call.path for call in run] == ["", "0", "1", "0", "2"]
    assert_unhooked(net)


def test_summary_prints_shapes_parameters_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    hookline.summary(model(), X)
    head, *rows, totals = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    assert head == "layer class output parameters mean std absmax"
    assert rows[1].startswith("0 Linear 3x4 20 ")
    assert rows[3].startswith("0 #1 Linear 3x4 (again) ")
    assert totals == "30 parameters, 20 trainable"


def test_summary_leaves_buffers_and_random_state(capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout())
    before = net[0].running_mean.clone(), torch.get_rng_state()
    hookline.summary(net, X)

    assert torch.equal(net[0].running_mean, before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("args", [(), ("0",)], ids=repr)
def test_summary_without_inputs_is_an_error(args: tuple[str, ...]) -> None:
    with pytest.raises(hookline.ArgumentError):
        hookline.summary(model(), *args)
