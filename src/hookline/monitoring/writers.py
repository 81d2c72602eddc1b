"""Writers: where the figures of a monitor go besides its folder.

A writer is any function of a step and a dict of figures by name, such as "layers.0/output/rms". Those here write the
figures of like layers together, as "layers.*/output/rms": a model of 48 layers has as many keys as one of two.
`all=True` writes every one.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from hookline.errors import ArgumentTypeError

NUMBER = re.compile(r"(?<![^./])\d+(?![^./])")
LARGEST = ("absmax", "unfinite")  # figures of which the largest stands for like layers; the mean of the others

Written = Callable[[int, Mapping[str, float]], None]


def grouped(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures of like layers together: those whose paths differ in numbers alone. NaN is left out.

    >>> grouped({"layers.0/output/rms": 1.0, "layers.1/output/rms": 3.0, "head/output/absmax": 2.0})
    {'layers.*/output/rms': 2.0, 'head/output/absmax': 2.0}
    """
    found: dict[str, list[float]] = {}
    for name, value in figures.items():
        if not math.isnan(value):
            found.setdefault(NUMBER.sub("*", name), []).append(value)
    return {
        name: max(values) if name.rpartition("/")[2] in LARGEST else sum(values) / len(values)
        for name, values in found.items()
    }


def chosen(figures: Mapping[str, float], all: bool) -> dict[str, float]:
    """The figures that are written."""
    return {name: value for name, value in figures.items() if not math.isnan(value)} if all else grouped(figures)


def tensorboard(writer: Any, *, all: bool = False, prefix: str = "hookline/") -> Written:
    """Write to a `SummaryWriter` of `torch.utils.tensorboard`, or anything with `add_scalar(name, value, step)`."""
    expect(writer, "add_scalar", "a SummaryWriter")

    def write(step: int, figures: Mapping[str, float]) -> None:
        for name, value in chosen(figures, all).items():
            writer.add_scalar(prefix + name, value, step)

    return write


def wandb(run: Any, *, all: bool = False, prefix: str = "hookline/") -> Written:
    """Write to a run of Weights & Biases (`wandb.init()`), or anything with `log(dict)`. The step is a figure of its
    own, "hookline/step", since a run counts its own steps. trackio has the same interface."""
    expect(run, "log", "a run of wandb")

    def write(step: int, figures: Mapping[str, float]) -> None:
        run.log({prefix + "step": step, **{prefix + name: value for name, value in chosen(figures, all).items()}})

    return write


trackio = wandb


def mlflow(client: Any, *, all: bool = False, prefix: str = "hookline/") -> Written:
    """Write to MLflow: the module `mlflow`, or anything with `log_metrics(dict, step)`. MLflow takes no "*" in names:
    "all" stands there."""
    expect(client, "log_metrics", "the module mlflow")

    def write(step: int, figures: Mapping[str, float]) -> None:
        told = {prefix + name.replace("*", "all"): value for name, value in chosen(figures, all).items()}
        client.log_metrics(told, step=step)

    return write


def expect(thing: Any, method: str, what: str) -> None:
    """ArgumentTypeError for what lacks a method."""
    if not callable(getattr(thing, method, None)):
        raise ArgumentTypeError(f"{what} is needed, with a method {method}, not {thing!r}")
