"""A model in training, and its steps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

Train = Callable[..., list[float]]


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


@pytest.fixture
def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def batches(count: int, *, begin: int = 0) -> list[torch.Tensor]:
    return [
        torch.randn(16, 4, generator=torch.Generator().manual_seed(number)) for number in range(begin, begin + count)
    ]


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, *, begin: int = 0, change: Any = None
) -> list[float]:
    """Train on batches that depend on their number alone; the losses."""
    losses = []
    for number, x in enumerate(batches(steps, begin=begin), begin):
        x = x if change is None else change(number, x)
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
