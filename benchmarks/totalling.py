"""What do totals cost? CPU time of six points of MiniLM over 256 texts, over the plain forwards; and sums by hand."""

import os
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

import hookline
from benchmarks.capturing import BATCH, POINTS, TEXTS, padded, texts
from benchmarks.ratios import Row, in_turns
from benchmarks.watching import minilm

ROUNDS = int(os.environ.get("HOOKLINE_BENCH_ROUNDS", "7"))
MEASURES: Mapping[str, Mapping[str, Any]] = {
    "mean, std, min, max, zeros": {},
    "the same, covariance": {"covariance": True},
    "the same, covariance, quantiles, top=32": {"covariance": True, "quantiles": True, "top": 32},
}


def rows() -> list[Row]:
    """One pass of each program a round, in turns; the ratio of each round to its plain pass, the median of these."""
    programs = programs_of(minilm().eval(), texts())
    seconds = in_turns({name: partial(cpu_seconds, program) for name, program in programs.items()}, ROUNDS)
    plain = seconds.pop("plain")
    return [row(name, own, plain) for name, own in seconds.items()]


def cpu_seconds(program: Callable[[], Any]) -> float:
    began = time.process_time()
    program()
    return time.process_time() - began


def row(name: str, own: list[float], plain: list[float]) -> Row:
    ratio = statistics.median(mine / alone for mine, alone in zip(own, plain, strict=True))
    times = statistics.median(own), statistics.median(plain)
    return Row(f"{name}, 6 points of MiniLM", "the plain forwards (CPU time)", *times, ratio, "≤")


def programs_of(model: nn.Module, data: list[list[int]]) -> dict[str, Callable[[], Any]]:
    batches = [data[start : start + BATCH] for start in range(0, TEXTS, BATCH)]

    def plain() -> None:
        with torch.no_grad():
            for batch in batches:
                model(**padded(batch))

    def ours(measures: Mapping[str, Any]) -> None:
        hookline.totals(
            model,
            data,
            POINTS,
            call=padded,
            rows=hookline.rows(mask="attention_mask"),
            batch=BATCH,
            progress=False,
            **measures,
        )

    def by_hand() -> None:
        """PyTorch's hooks that add up the sums and the products of the real rows, in float64."""
        mask = torch.empty(0)
        sums: dict[str, list[Any]] = {path: [0.0, 0.0] for path in POINTS}

        def add(into: list[Any]) -> Callable[..., None]:
            def hook(module: Any, args: Any, output: Any) -> None:
                rows = (output[0] if isinstance(output, tuple) else output)[mask].double()
                into[0] = into[0] + rows.sum(0)
                into[1] = into[1] + rows.T @ rows

            return hook

        handles = [model.get_submodule(path).register_forward_hook(add(into)) for path, into in sums.items()]
        with torch.no_grad():
            for batch in batches:
                given = padded(batch)
                mask = given["attention_mask"].bool()
                model(**given)
        for handle in handles:
            handle.remove()

    return {
        "plain": plain,
        **{f"hookline.totals: {name}": partial(ours, measures) for name, measures in MEASURES.items()},
        "hooks that add up sums and products in float64": by_hand,
    }
