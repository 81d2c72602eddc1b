"""What does a diff cost? Compared with running each of the two models once."""

import copy
from functools import partial
from typing import Any

import torch
from torch import nn

import hookline
from benchmarks.ratios import ROUNDS, Row, compare, once_set_up
from benchmarks.watching import forward, minilm


def rows() -> list[Row]:
    """A diff of two equal MiniLM, with copies and with fingerprints, then of one that differs from layer 3 on."""
    model = minilm()
    twin, other = copy.deepcopy(model), copy.deepcopy(model)
    other.encoder.layer[3].output.LayerNorm.eps = 1e-3  # type: ignore[union-attr, index]
    inputs = {"input_ids": torch.arange(8 * 128).reshape(8, 128)}
    programs: list[tuple[str, nn.Module, Any]] = [
        ("equal", twin, "copy"),
        ("equal, `keep=hookline.fingerprint`", twin, hookline.fingerprint),
        ("one differs from layer 3 on", other, "copy"),
    ]
    return [
        compare(
            f"`diff` of two MiniLM, 8x128: {name}",
            once_set_up("f()", f=partial(compared, model, second, inputs, keep)),
            "a forward of each",
            once_set_up("f()", f=partial(both, model, second, inputs)),
            goal="≤",
            number=1,
            rounds=min(ROUNDS, 11),
        )
        for name, second, keep in programs
    ]


def compared(one: nn.Module, other: nn.Module, inputs: dict[str, Any], keep: Any) -> None:
    """One diff of them."""
    hookline.diff(one, other, keep=keep, **inputs)


def both(one: nn.Module, other: nn.Module, inputs: dict[str, Any]) -> None:
    """One forward of each."""
    forward(one, inputs)
    forward(other, inputs)
