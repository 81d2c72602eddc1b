"""Small parts that tests of the rules are built of."""

from typing import Any

import torch
from torch import Tensor, nn

from hookline import Findings

X = torch.linspace(-1, 1, 128).reshape(32, 4)


class Held(nn.Module):
    """A module with children that a function of it and its input calls."""

    def __init__(self, forward: Any, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.function = forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def zeros(inside: int = 4, out: int = 4) -> nn.Linear:
    """A linear layer that returns zeros."""
    layer = nn.Linear(inside, out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def told(findings: Findings, rule: str) -> list[tuple[str, str | None]]:
    """Where one rule found something, and how bad it is."""
    return [(each.path, each.severity) for each in findings.of(rule)]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int, x: Tensor = X) -> None:
    """Training steps on the mean square of the output."""
    for _ in range(steps):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
