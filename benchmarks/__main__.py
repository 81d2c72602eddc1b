"""`python -m benchmarks [NAME ...]`: print the ratios of all benchmarks, or those named; exit 1 if one misses."""

import platform
import sys
from datetime import date
from importlib import import_module

import torch

from benchmarks.ratios import show

NAMES = (
    "importing",
    "calls",
    "backward",
    "watching",
    "editing",
    "guarding",
    "monitoring",
    "diffing",
    "profiling",
    "paging",
    "capturing",
    "totalling",
    "capture_reading",
    "compiling",
)


def main(names: list[str]) -> int:
    """Print a table for each benchmark; returns 1 if a ratio misses its goal, else 0."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{date.today()}, {versions}, {torch.get_num_threads()} threads, {processor()}")
    missed = 0
    for name in names or NAMES:
        module = import_module(f"benchmarks.{name}")
        rows = module.rows()
        show(module.__doc__ or name, rows)
        missed += sum(not row.met for row in rows)
    print(f"{missed} ratios miss their goals")
    return min(missed, 1)


def processor() -> str:
    """The name of the processor, or of its architecture if that is unknown."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
