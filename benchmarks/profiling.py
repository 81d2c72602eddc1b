"""What does profiling cost? A profiled step of MiniLM, compared with the plain step."""

import time
from functools import partial
from typing import Any

import torch
from torch import nn

import hookline
from benchmarks.ratios import Row, compare, once_set_up
from benchmarks.watching import backward, forward, minilm
from hookline.profiling.timeline import Timeline


def rows() -> list[Row]:
    """A step with the clock read around every call, hooks added and removed, compared with the plain step."""
    model = minilm()
    small = {"input_ids": torch.arange(8).reshape(1, 8) + 1000}
    large = {"input_ids": torch.randint(1000, 2000, (8, 128), generator=torch.Generator().manual_seed(0))}
    found = []
    for name, inputs, number, rounds in (("1x8", small, 3, 21), ("8x128", large, 1, 7)):
        for what, program in (("forward", forward), ("forward + backward", backward)):
            found.append(
                compare(
                    f"a profiled {what}, MiniLM, {name}",
                    once_set_up("f()", f=partial(profiled, model, inputs, graded=program is backward)),
                    f"the plain {what}",
                    once_set_up("f()", f=partial(program, model, inputs)),
                    goal="≤",
                    number=number,
                    rounds=rounds,
                )
            )
    return found


def profiled(model: nn.Module, inputs: dict[str, Any], *, graded: bool) -> None:
    """One step as `hookline.profile` times it."""
    with Timeline(time.perf_counter, backward=graded).reading(hookline.select(model, "**")):
        (backward if graded else forward)(model, inputs)
