"""What the tests of the reports share."""

import pytest
import torch
from torch import nn

import hookline
from hookline import Run


@pytest.fixture(scope="session")
def long() -> Run:
    """A run of 1500 calls."""
    net = nn.ReLU()
    with hookline.watch(net) as run:
        for _ in range(1500):
            net(torch.ones(1))
    return run
