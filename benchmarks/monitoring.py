"""What does a monitor cost? Training steps of MiniLM and of a GPT-2 of 12 layers, in CPU time of one PyTorch thread."""

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import hookline
from benchmarks.ratios import Row, in_turns
from benchmarks.watching import minilm

ROUNDS = int(os.environ.get("HOOKLINE_BENCH_ROUNDS", "11"))
GOALS = {"a sampled step": "≤1.10", "a step that is not sampled": "≤1.005"}
FIGURES = ("rms", "absmax", "kurtosis", "zeros")
Set = Callable[[nn.Module, torch.optim.Optimizer], Any]


def rows() -> list[Row]:
    """Each round times one step of each program, in turns; a row has the median ratio to the plain step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [row for name, make in MODELS.items() for row in of_model(name, make)]
    finally:
        torch.set_num_threads(threads)


def of_model(name: str, make: Callable[[], tuple[nn.Module, dict[str, Tensor]]]) -> list[Row]:
    """The rows of one model."""
    programs = {what: Program(make, set_up) for what, set_up in PROGRAMS.items()}
    seconds = in_turns({what: program.seconds for what, program in programs.items()}, ROUNDS)
    plain = seconds.pop("plain")
    return [row(f"{what}, {name}", own, plain, GOALS.get(what, "")) for what, own in seconds.items()]


def row(name: str, own: list[float], plain: list[float], goal: str) -> Row:
    """The median over the rounds of the time of a step over that of the plain step."""
    ratio = statistics.median(mine / alone for mine, alone in zip(own, plain, strict=True))
    times = statistics.median(own), statistics.median(plain)
    return Row(name, "the plain training step", *times, ratio, goal)


class Program:
    """A training step of its own model, forward, backward and AdamW."""

    def __init__(self, make: Callable[[], tuple[nn.Module, dict[str, Tensor]]], set_up: Set) -> None:
        torch.manual_seed(0)
        self.model, self.inputs = make()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6)
        self.kept = set_up(self.model, self.optimizer)
        if isinstance(self.kept, hookline.LiveMonitor):
            self.kept.steps = 10  # the first ten are always sampled
            self.kept._begin()

    def seconds(self) -> float:
        """CPU seconds of one step, without the garbage collector."""
        gc.collect()
        gc.disable()
        begin = time.process_time()
        self.optimizer.zero_grad()
        self.model(**self.inputs)[0].square().mean().backward()
        self.optimizer.step()
        seconds = time.process_time() - begin
        gc.enable()
        return seconds


def encoder() -> tuple[nn.Module, dict[str, Tensor]]:
    """MiniLM, 8 texts of 128 tokens."""
    return minilm().train(), {"input_ids": torch.randint(1000, 2000, (8, 128))}


def decoder() -> tuple[nn.Module, dict[str, Tensor]]:
    """A GPT-2 of 12 layers, 8 texts of 128 tokens."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(n_layer=12, n_embd=256, n_head=4, vocab_size=2000, use_cache=False)
    return GPT2Model(config).train(), {"input_ids": torch.randint(0, 2000, (8, 128))}


def by_hand(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    """Hooks as people write them: the norm of every output, and of its gradient, fetched at once."""
    figures: dict[str, float] = {}

    def see(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensor = output if isinstance(output, Tensor) else next(iter(output.values())) if output else None
            if isinstance(tensor, Tensor):
                figures[path] = tensor.detach().norm().item()

        return hook

    def see_gradient(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            if outputs and outputs[0] is not None:
                figures[f"{path}.grad"] = outputs[0].norm().item()

        return hook

    handles = []
    for path, module in model.named_modules():
        if not any(module.children()):
            handles += [module.register_forward_hook(see(path)), module.register_full_backward_hook(see_gradient(path))]
    return handles


def logged(frequency: int) -> Set:
    """`wandb.watch` of gradients and weights, as histograms, to a run that stays on this machine."""

    def set_up(model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
        import wandb

        run = wandb.run or wandb.init(mode="offline", dir=tempfile.mkdtemp(), settings=wandb.Settings(silent=True))
        wandb.watch(model, log="all", log_freq=frequency)
        optimizer.register_step_post_hook(lambda *_: run.log({"step": 1}))
        return run

    return set_up


def monitored(**options: Any) -> Set:
    """A monitor."""
    return lambda model, optimizer: hookline.monitor(model, optimizer, figures=FIGURES, **options)


MODELS = {"MiniLM, 8x128": encoder, "GPT-2, 12 layers, 8x128": decoder}
PROGRAMS: dict[str, Set] = {
    "plain": lambda model, optimizer: None,
    "a sampled step": monitored(every=1),
    "a step that is not sampled": monitored(every=10**9),
    "the recorder, not sampled": monitored(every=10**9, recorder=8),
    "hooks by hand, on leaves": by_hand,
}
if find_spec("wandb"):
    PROGRAMS |= {"wandb.watch, log_freq=1": logged(1), "wandb.watch, log_freq=10": logged(10)}
