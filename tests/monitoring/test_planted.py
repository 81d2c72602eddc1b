"""Planted spikes are found at their step and layer, and healthy runs give no alert."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import hookline
from hookline import alerts

STEPS = 60
RULES = [alerts.jump("rms", 10), alerts.jump("absmax", 20), alerts.dead(), alerts.exploding(), alerts.nonfinite()]


def deep(kind: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(12, 12), nn.LayerNorm(12), kind()]
    return nn.Sequential(*layers, nn.Linear(12, 3))


def batch(step: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(1000 * seed + step)
    x = torch.randn(16, 12, generator=chance)
    return x, x[:, :3] * 0.5


def run(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    before: Callable[[int], Any] = lambda step: None,
    after: Callable[[int], Any] = lambda step: None,
    seed: int = 0,
    loss: Callable[..., torch.Tensor] = nn.functional.mse_loss,
) -> list[hookline.Finding]:
    ignore: Callable[..., None] = lambda finding: None  # noqa: E731
    with hookline.monitor(model, optimizer, every=1, alert=RULES, then=ignore) as monitor:
        for step in range(STEPS):
            x, y = batch(step, seed)
            before(step)
            optimizer.zero_grad()
            loss(model(x), y).backward()
            after(step)
            optimizer.step()
    return monitor.alerts


def first(found: list[hookline.Finding]) -> tuple[int, str]:
    return found[0].evidence["step"], found[0].path


@pytest.mark.parametrize(("step", "layer"), [(20, "0"), (31, "3"), (40, "6"), (44, "9"), (50, "12")])
def test_scaled_weight_is_found_at_its_layer(step: int, layer: str) -> None:
    torch.manual_seed(0)
    model = deep()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def spoil(now: int) -> None:
        if now == step:
            with torch.no_grad():
                model.get_submodule(layer).weight.mul_(100)

    assert first(run(model, optimizer, before=spoil)) == (step, layer)


@pytest.mark.parametrize(("step", "layer"), [(25, "2"), (33, "5"), (47, "8")])
def test_output_that_jumps_is_found_at_its_layer(step: int, layer: str) -> None:
    torch.manual_seed(0)
    model = deep()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    handles: list[Any] = []

    def spoil(now: int) -> None:
        if now == step:
            module = model.get_submodule(layer)
            handles.append(module.register_forward_hook(lambda module, args, output: output * 100))
        elif handles:
            handles.pop().remove()

    assert first(run(model, optimizer, before=spoil)) == (step, layer)


@pytest.mark.parametrize(("step", "name"), [(22, "0.weight"), (36, "6.weight"), (52, "12.bias")])
def test_gradient_that_jumps_is_found_at_its_weight(step: int, name: str) -> None:
    torch.manual_seed(0)
    model = deep()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def spoil(now: int) -> None:
        if now == step:
            model.get_parameter(name).grad.mul_(1e4)

    assert first(run(model, optimizer, after=spoil)) == (step, name)


@pytest.mark.parametrize(("step", "layer"), [(18, "0"), (30, "3")])
def test_nan_is_found_at_its_layer(step: int, layer: str) -> None:
    torch.manual_seed(0)
    model = deep()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def spoil(now: int) -> None:
        if now == step:
            with torch.no_grad():
                model.get_submodule(layer).weight[0, 0] = math.nan

    found = run(model, optimizer, before=spoil)
    assert (first(found), found[0].rule) == ((step, layer), "nonfinite")


@pytest.mark.parametrize("step", [28, 45])
def test_learning_rate_that_jumps_is_found_at_its_step(step: int) -> None:
    torch.manual_seed(0)
    model = deep()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def spoil(now: int) -> None:
        optimizer.param_groups[0]["lr"] = 50.0 if now == step else 0.01

    found = run(model, optimizer, before=spoil)
    assert (found[0].evidence["step"], found[0].evidence["of"]) == (step, "update")


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=1e-3),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_healthy_run_has_no_alert(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    model = deep([nn.Tanh, nn.GELU, nn.ReLU][seed])
    assert run(model, OPTIMIZERS[name](model.parameters()), seed=seed) == []
