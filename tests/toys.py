"""Small modules and models on disk that several tests use."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

SLEEP = 0.03


class Gives(nn.Module):
    """A module that gives what a function makes of its arguments."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.make(*args, **kwargs)


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


class about:
    """Equal to at least a time and at most twice that: sleeping takes what it takes, and the machine may be busy."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __eq__(self, other):
        return 0.95 * self.seconds <= other <= 2 * self.seconds

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
