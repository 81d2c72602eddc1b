"""What do a guard and other tools cost? A training step of MiniLM, 8x128, compared with the plain step."""

import gc
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

import hookline
from benchmarks.ratios import Row, in_turns
from benchmarks.watching import minilm

ROUNDS = int(os.environ.get("HOOKLINE_BENCH_ROUNDS", "11"))
GOALS = {"guard(model)": "≤1.10"}


def rows() -> list[Row]:
    """Each round times one step of each program, in turns; a row has the median ratio to the plain step."""
    programs = {
        "plain": Program(nullcontext),
        "guard(model)": Program(hookline.guard),
        "guard(model, grads=False)": Program(lambda model: hookline.guard(model, grads=False)),
        "torch.autograd.detect_anomaly": Program(lambda model: anomaly()),
        "transformers' DebugUnderflowOverflow": Program(debugged),
    }
    seconds = in_turns({name: program.seconds for name, program in programs.items()}, ROUNDS)
    plain = seconds.pop("plain")
    return [row(name, own, plain) for name, own in seconds.items()]


def row(name: str, own: list[float], plain: list[float]) -> Row:
    """The median over the rounds of the time of a step over that of the plain step."""
    ratio = statistics.median(mine / alone for mine, alone in zip(own, plain, strict=True))
    times = statistics.median(own), statistics.median(plain)
    return Row(f"{name}, MiniLM, 8x128", "the plain training step", *times, ratio, GOALS.get(name, ""))


class Program:
    """A training step of its own model, forward, backward and AdamW, within a context manager."""

    def __init__(self, around: Callable[[nn.Module], AbstractContextManager[object]]) -> None:
        torch.manual_seed(0)
        self.model = minilm().train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6)
        self.inputs = torch.randint(1000, 2000, (8, 128))
        self.around = around

    def seconds(self) -> float:
        """Seconds of one step, without the garbage collector; entering the context manager is not timed."""
        with self.around(self.model):
            gc.collect()
            gc.disable()
            begin = time.perf_counter()
            self.optimizer.zero_grad()
            self.model(input_ids=self.inputs).last_hidden_state.square().mean().backward()
            self.optimizer.step()
            seconds = time.perf_counter() - begin
            gc.enable()
        return seconds


@contextmanager
def anomaly() -> Iterator[None]:
    """PyTorch's own search for the operation whose backward returns NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly():
            yield


@contextmanager
def debugged(model: nn.Module) -> Iterator[None]:
    """The hooks of transformers that look for overflow. They cannot be removed, so they are added once."""
    from transformers.debug_utils import DebugUnderflowOverflow

    if not any(module._forward_hooks for module in model.modules()):
        DebugUnderflowOverflow(model)
    yield
