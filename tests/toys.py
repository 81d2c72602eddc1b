"""Small modules and models on disk that several tests use."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import hookline
from hookline.model.sharded import Part

SLEEP = 0.03


class Gives(nn.Module):
    """A module that gives what a function makes of its arguments."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.make(*args, **kwargs)


def checkpointed() -> hookline.Run:
    """A run of one call, and of the one that the backward pass made to get back what the first let go."""
    layer = nn.Linear(4, 4)
    with hookline.watch(layer) as run:
        checkpoint(layer, torch.ones(1, 4), use_reentrant=False).sum().backward()
    return run


def spread(rank: int = 0) -> hookline.Run:
    """A run of one of two ranks, of a layer that gave three of six rows; the gradient that came was not summed up."""
    layer = nn.Linear(4, 2)
    with hookline.watch(layer, grads=True) as run:
        layer(torch.ones(3, 4)).sum().backward()
    output = run.calls[0].output
    output.shape = (6, 2)
    output._part = Part((3, 2), ("Shard(0)",), (2,), (0, 1), (rank,))
    output.grad._part = Part((3, 2), ("Partial(sum)",), (2,), (0, 1), (rank,))
    return run


def save_tiny_bert(folder: Path) -> Path:
    """Write a tiny BERT for classification to a folder, as transformers does; gives the folder."""
    import transformers

    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


class Simulated:
    """Stands in for the module `time`: sleeping takes exactly what it is to take, and all else a microsecond for each
    look at the clock, however busy the machine is."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def perf_counter(self) -> float:
        self.now += 1e-6
        return self.now


class about:
    """Equal to a time but for a few looks at the clock."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __eq__(self, other):
        return abs(other - self.seconds) <= 0.01 * self.seconds

    def __repr__(self):
        return f"about {self.seconds}"


class Sleeps(torch.autograd.Function):
    """An identity that takes its time, in the forward and in the backward."""

    @staticmethod
    def forward(ctx, x, forward, backward):
        ctx.seconds = backward
        time.sleep(forward)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(ctx.seconds)
        return gradient, None, None


class Slow(nn.Module):
    def __init__(self, forward=0.0, backward=0.0):
        super().__init__()
        self.seconds = forward, backward

    def forward(self, x):
        return Sleeps.apply(x, *self.seconds)
