"""Dead units, of modules that are called from several places and of torch.relu, which is no module."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted.parts import Held, told
from torch import Tensor, nn
from torch.nn import functional as F

import hookline

torch.manual_seed(1)
X = torch.randn(256, 8)


class Block(nn.Module):
    """Two layers with one rectifier for both, as ResNet has it."""

    def __init__(self, *, inplace: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.relu = nn.ReLU(inplace=inplace)
        for layer in (self.first, self.second):
            nn.init.ones_(layer.bias)  # so that no unit is dead by chance

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.first(x))
        return self.relu(self.second(hidden) + x)


def blocks(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), Block(**options), Block(**options))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_shared_rectifier_is_judged_at_each_place(inplace: bool, grad: bool) -> None:
    model = blocks(inplace=inplace)
    nn.init.constant_(model[1].first.bias, -100)
    with torch.set_grad_enabled(grad), hookline.check(model) as findings:
        model(X)

    (found,) = findings.of("dead-units")
    assert (found.path, found.call, found.severity) == ("1.relu", 0, "warning")
    assert "where 1 calls it after 1.first" in found.message


def test_shared_rectifier_of_a_sequential_is_judged_at_each_place() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(8, 8), relu, nn.Linear(8, 8), relu, nn.Linear(8, 8))
    nn.init.constant_(model[2].bias, -100)

    (found,) = hookline.check(model, X).of("dead-units")
    assert (found.path, found.call) == ("1", 1)


def test_shared_rectifier_that_is_alive_everywhere_is_fine() -> None:
    assert told(hookline.check(blocks(), X), "dead-units") == []


def test_units_of_a_shared_rectifier_add_up_over_steps() -> None:
    model = blocks()
    with hookline.check(model) as findings:
        for step in range(4):
            nn.init.constant_(model[1].first.bias, 1.0 if step == 2 else -100.0)
            model(X)

    assert told(findings, "dead-units") == []


def test_steps_of_a_recurrence_are_one_place() -> None:
    def unroll(self: Any, x: Tensor) -> Tensor:
        state = torch.zeros(64, 8)
        for step in range(8):
            state = self.relu(self.cell(state) + (1 if step == 5 else -100))
        return state

    assert told(hookline.check(Held(unroll, cell=nn.Linear(8, 8), relu=nn.ReLU()), X), "dead-units") == []


def test_shared_rectifier_of_a_saved_run_is_judged_at_each_place(tmp_path: Path) -> None:
    model = blocks()
    nn.init.constant_(model[1].first.bias, -100)
    with hookline.watch(model) as run:
        model(X)
    run.save(tmp_path / "run")

    (found,) = hookline.check(hookline.load(tmp_path / "run")).of("dead-units")
    assert (found.path, found.call) == ("1.relu", 0)


def test_shared_sigmoid_is_judged_at_each_place() -> None:
    def gates(self: Any, x: Tensor) -> Tensor:
        return self.last(self.gate(self.a(x)) * self.gate(self.b(x)))

    model = Held(gates, a=nn.Linear(8, 8), b=nn.Linear(8, 8), last=nn.Linear(8, 8), gate=nn.Sigmoid())
    nn.init.constant_(model.b.bias, 100)

    (found,) = hookline.check(model, X).of("saturated")
    assert (found.path, found.call) == ("gate", 1)


# torch.relu


def after_first(make: Any) -> nn.Module:
    model = Held(lambda self, x: self.last(make(self.first(x))), first=nn.Linear(8, 16), last=nn.LazyLinear(4))
    model(X)
    nn.init.constant_(model.first.bias, -100)
    return model


@pytest.mark.parametrize(
    "make",
    [
        torch.relu,
        F.relu,
        lambda x: x.relu(),
        lambda x: F.relu(x, inplace=True),
        lambda x: F.dropout(F.relu(x), 0.1),
        lambda x: F.relu(x + 1),
        lambda x: F.relu(x) * (torch.arange(16) > 7),
    ],
)
def test_dead_units_of_torch_relu_are_found_in_the_input_of_what_takes_them(make: Any) -> None:
    (found,) = hookline.check(after_first(make), X).of("dead-units")

    assert (found.path, found.severity, found.evidence["dead"]) == ("first", "warning", 16)
    assert "after torch.relu, as last receives them" in found.message


@pytest.mark.parametrize("make", [F.relu6, lambda x: F.relu6(x, inplace=True), lambda x: F.dropout(F.relu6(x), 0.1)])
def test_dead_units_of_relu6_are_found_in_the_input_of_what_takes_them(make: Any) -> None:
    (found,) = hookline.check(after_first(make), X).of("dead-units")

    assert (found.path, found.evidence["dead"]) == ("first", 16)
    assert "after F.relu6, as last receives them" in found.message


@pytest.mark.parametrize("make", [F.relu6, lambda x: F.hardtanh(x, -1, 1)])
def test_live_units_of_hardtanh_are_fine(make: Any) -> None:
    model = after_first(make)
    nn.init.constant_(model.first.bias, 0)

    assert not hookline.check(model, X).of("dead-units")


def test_dead_units_of_torch_relu_are_found_in_what_a_module_returns() -> None:
    model = nn.Sequential(Held(lambda self, x: self.inner(x).relu(), inner=nn.Linear(8, 8)), nn.Linear(8, 8))
    nn.init.constant_(model[0].inner.bias, -100)

    (found,) = hookline.check(model, X).of("dead-units")
    assert found.path == "0.inner"
    assert "as 0 returns them" in found.message


def test_dead_channels_are_found_through_pooling_and_a_view() -> None:
    model = Held(
        lambda self, x: self.last(F.max_pool2d(F.relu(self.first(x)), 2).flatten(1)),
        first=nn.Conv2d(1, 4, 3, padding=1),
        last=nn.Linear(64, 4),
    )
    nn.init.constant_(model.first.bias[:3], -100)

    (found,) = hookline.check(model, torch.randn(4, 1, 8, 8)).of("dead-units")
    assert (found.path, found.evidence["dead"], found.evidence["units"]) == ("first", 3, 4)


def test_live_units_of_torch_relu_are_fine() -> None:
    model = after_first(torch.relu)
    nn.init.zeros_(model.first.bias)

    assert told(hookline.check(model, X), "dead-units") == []


def test_zeros_in_the_data_are_no_dead_units() -> None:
    assert told(hookline.check(nn.Linear(8, 8), X.relu() * 0), "dead-units") == []


def test_rectifier_module_is_counted_once() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    nn.init.constant_(model[0].bias, -100)

    assert told(hookline.check(model, X), "dead-units") == [("1", "warning")]
