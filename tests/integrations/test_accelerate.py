"""A monitor in a loop of accelerate: its optimizers are wrappers, and gradients are accumulated."""

import pytest
import torch
from torch import nn

import hookline

accelerate = pytest.importorskip("accelerate")


def test_prepared_optimizer_ends_steps() -> None:
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with hookline.monitor(model, optimizer, every=1) as monitor:
        for _ in range(6):
            with accelerator.accumulate(model):
                accelerator.backward(model(torch.randn(2, 4)).mean())
                optimizer.step()
                optimizer.zero_grad()
    assert monitor.series("0", "output", "rms").steps[:, 0].tolist() == [0, 1, 2]
