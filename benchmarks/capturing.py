"""What does a capture cost? CPU time of six points of MiniLM over 256 texts, over the plain forwards; and others."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

import hookline
from benchmarks.ratios import Row, in_turns
from benchmarks.watching import minilm

ROUNDS = int(os.environ.get("HOOKLINE_BENCH_ROUNDS", "7"))
POINTS = [f"encoder.layer.{number}" for number in range(6)]
BATCH, TEXTS, LONGEST, WIDTH = 32, 256, 128, 384
WANTED = {"hookline.capture, bfloat16": "≤1.10", "hookline.capture, float32": "≤1.10"}


def rows() -> list[Row]:
    """One pass of each program a round, in turns; the ratio of each round to its plain pass, the median of these."""
    programs = programs_of(minilm().eval(), texts())
    seconds = in_turns({name: partial(cpu_seconds, program) for name, program in programs.items()}, ROUNDS)
    plain = seconds.pop("plain")
    return [row(name, own, plain) for name, own in seconds.items()]


def cpu_seconds(program: Callable[[Path], Any]) -> float:
    """CPU seconds of a program that writes to a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        program(Path(folder))
        return time.process_time() - began


def row(name: str, own: list[float], plain: list[float]) -> Row:
    """The median over the rounds of the CPU time of a capture over that of a plain pass."""
    ratio = statistics.median(mine / alone for mine, alone in zip(own, plain, strict=True))
    times = statistics.median(own), statistics.median(plain)
    return Row(f"{name}, 6 points of MiniLM", "the plain forwards (CPU time)", *times, ratio, WANTED.get(name, ""))


def texts() -> list[list[int]]:
    """The token ids of texts of all lengths."""
    lengths = torch.randint(16, LONGEST + 1, (TEXTS,), generator=torch.Generator().manual_seed(0)).tolist()
    return [torch.randint(1000, 20000, (length,)).tolist() for length in sorted(lengths)]


def padded(batch: list[list[int]]) -> dict[str, torch.Tensor]:
    """A batch as the model takes it."""
    longest = max(map(len, batch))
    ids = torch.tensor([text + [0] * (longest - len(text)) for text in batch])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def programs_of(model: nn.Module, data: list[list[int]]) -> dict[str, Callable[[Path], Any]]:
    """Each program takes the folder that it writes to."""
    batches = [data[start : start + BATCH] for start in range(0, TEXTS, BATCH)]

    def plain(folder: Path) -> None:
        with torch.no_grad():
            for batch in batches:
                model(**padded(batch))

    def ours(dtype: torch.dtype) -> Callable[[Path], Any]:
        return lambda folder: hookline.capture(
            model,
            data,
            POINTS,
            to=folder / "acts",
            call=padded,
            rows=hookline.rows(mask="attention_mask"),
            batch=BATCH,
            dtype=dtype,
            progress=False,
        )

    def by_hand(folder: Path) -> None:
        """PyTorch's hooks and a memory map for each point, all positions padded to the longest."""
        shape = (TEXTS, LONGEST, WIDTH)
        maps: list[Any] = [numpy.memmap(folder / f"{path}.bin", "float32", "w+", shape=shape) for path in POINTS]
        place = slice(0, 0)

        def keep(into: Any) -> Callable[..., None]:
            def hook(module: Any, args: Any, output: Any) -> None:
                tensor = output[0] if isinstance(output, tuple) else output
                into[place, : tensor.shape[1]] = tensor.numpy()

            return hook

        handles = [
            model.get_submodule(path).register_forward_hook(keep(into)) for path, into in zip(POINTS, maps, strict=True)
        ]
        with torch.no_grad():
            for number, batch in enumerate(batches):
                place = slice(number * BATCH, number * BATCH + len(batch))
                model(**padded(batch))
        for handle in handles:
            handle.remove()
        for each in maps:
            each.flush()

    def captum(folder: Path) -> None:
        from captum._utils.av import AV  # type: ignore[import-untyped]

        loader = [(padded(batch)["input_ids"], padded(batch)["attention_mask"]) for batch in batches]
        with torch.no_grad():
            for number, batch in enumerate(loader):
                AV._compute_and_save_activations(  # what AV.generate_dataset_activations does with each batch
                    str(folder), model, "minilm", POINTS, batch, "texts", str(number)
                )

    return {
        "plain": plain,
        "hookline.capture, bfloat16": ours(torch.bfloat16),
        "hookline.capture, float32": ours(torch.float32),
        "hooks and numpy.memmap": by_hand,
        "captum's AV": captum,
    }
