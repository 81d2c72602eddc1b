"""Chance that depends on a text alone: the same in every process, and no generator that others see moves."""

import hashlib
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


def number_of(text: str) -> int:
    """A number of 56 bits that stands for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def chance(text: str) -> torch.Generator:
    """A generator for one decision."""
    return torch.Generator().manual_seed(number_of(text))


@contextmanager
def chance_of(text: str, devices: Sequence[torch.device]) -> Iterator[None]:
    """A block in which the generators of torch, numpy and Python begin where the text says; at its end they are where
    they were.

    - `devices`: the CUDA devices whose generators do.

    >>> draws = []
    >>> for _ in range(2):
    ...     with chance_of("batch 3", []):
    ...         draws.append(torch.rand(()).item())
    >>> draws[0] == draws[1]
    True
    """
    seed = number_of(text)
    python, numpy = random.getstate(), sys.modules.get("numpy")
    numbers = numpy.random.get_state() if numpy is not None else None
    with torch.random.fork_rng(devices=[*devices]):
        torch.default_generator.manual_seed(seed)
        for device in devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        random.seed(seed)
        if numpy is not None:
            numpy.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            if numpy is not None:
                numpy.random.set_state(numbers)
