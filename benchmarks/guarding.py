"""What does a guard cost? A training step of MiniLM, 8x128, beside the plain step; what others cost beside the same."""

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
from benchmarks.ratios import Row
from benchmarks.watching import minilm

ROUNDS = int(os.environ.get("HOOKLINE_BENCH_ROUNDS", "11"))
WANTED = {"guard(model)": "≤1.10"}


def rows() -> list[Row]:
    """One step of each program a round, in turns; the ratio of each round to its plain step, the median of these."""
    programs = {
        "plain": Program(nullcontext),
        "guard(model)": Program(hookline.guard),
        "guard(model, grads=False)": Program(lambda model: hookline.guard(model, grads=False)),
        "torch.autograd.detect_anomaly": Program(lambda model: anomaly()),
        "transformers' DebugUnderflowOverflow": Program(debugged),
    }
    for program in programs.values():
        program.seconds()

    seconds: dict[str, list[float]] = {name: [] for name in programs}
    names = [*programs]
    for round in range(ROUNDS):
        for name in names[round % len(names) :] + names[: round % len(names)]:
            seconds[name].append(programs[name].seconds())
    plain = seconds.pop("plain")
    return [row(name, own, plain) for name, own in seconds.items()]


def row(name: str, own: list[float], plain: list[float]) -> Row:
    """The median over the rounds of what a guarded step takes over a plain one."""
    ratio = statistics.median(mine / alone for mine, alone in zip(own, plain, strict=True))
    times = statistics.median(own), statistics.median(plain)
    return Row(f"{name}, MiniLM, 8x128", "the plain training step", *times, ratio, WANTED.get(name, ""))


class Program:
    """A model of its own in training, with something around it that is put on once: forward, backward, AdamW."""

    def __init__(self, around: Callable[[nn.Module], AbstractContextManager[object]]) -> None:
        torch.manual_seed(0)
        self.model = minilm().train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6)
        self.inputs = torch.randint(1000, 2000, (8, 128))
        self.around = around

    def seconds(self) -> float:
        """Seconds of one step, without the garbage collector; what is around the model is put on before."""
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
    """PyTorch's own search for the operation whose backward gives NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly():
            yield


@contextmanager
def debugged(model: nn.Module) -> Iterator[None]:
    """The hooks of transformers that look for overflow, which have no undo of their own: they are put on once."""
    from transformers.debug_utils import DebugUnderflowOverflow

    if not any(module._forward_hooks for module in model.modules()):
        DebugUnderflowOverflow(model)
    yield
