"""Chance that depends on a text alone: the same in every process, and no generator that others see moves."""

import hashlib

import torch


def number_of(text: str) -> int:
    """A number of 56 bits that stands for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def chance(text: str) -> torch.Generator:
    """A generator for one decision."""
    return torch.Generator().manual_seed(number_of(text))
