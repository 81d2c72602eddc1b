"""How every figure here is made: two programs interleaved in one process, the ratio of each round, the median of the rounds."""

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

ROUNDS = int(os.environ.get("HOOKLINE_BENCH_ROUNDS", "41"))


@dataclass(frozen=True, slots=True)
class Row:
    """One question: what took how long beside what, and the ratio that was asked for."""

    what: str
    beside: str
    ours: float
    theirs: float
    ratio: float
    wanted: str

    @property
    def met(self) -> bool:
        """Whether the figure is at least what was asked for."""
        kind, bound = self.wanted[0], float(self.wanted[1:].rstrip("x"))
        return self.ratio >= bound if kind == "≥" else self.ratio <= bound


def faster(what: str, ours: Callable[[], object], beside: str, theirs: Callable[[], object], *, wanted: float, number: int) -> Row:
    """How many times faster `ours` is than `theirs`; wanted: at least so many."""
    mine, other, ratio = interleaved(ours, theirs, number=number)
    return Row(what, beside, mine, other, 1 / ratio, f"≥{wanted}x")


def at_most(what: str, ours: Callable[[], object], beside: str, theirs: Callable[[], object], *, wanted: float, number: int) -> Row:
    """How many times the time of `theirs` that `ours` takes; wanted: at most so many."""
    mine, other, ratio = interleaved(ours, theirs, number=number)
    return Row(what, beside, mine, other, ratio, f"≤{wanted}x")


def interleaved(ours: Callable[[], object], theirs: Callable[[], object], *, number: int) -> tuple[float, float, float]:
    """Median seconds of one run of each, and the median over the rounds of ours over theirs; the order alternates."""
    for program in (ours, theirs) * 2:
        timed(program, number)

    mine, other = [], []
    gc.collect()
    gc.disable()
    try:
        for round in range(ROUNDS):
            if round % 2:
                mine.append(timed(ours, number))
                other.append(timed(theirs, number))
            else:
                other.append(timed(theirs, number))
                mine.append(timed(ours, number))
    finally:
        gc.enable()
    return statistics.median(mine), statistics.median(other), statistics.median(a / b for a, b in zip(mine, other, strict=True))


def timed(program: Callable[[], object], number: int) -> float:
    """Seconds of one run of `program`, from `number` of them in a row."""
    repeat = range(number)
    begin = time.perf_counter()
    for _ in repeat:
        program()
    return (time.perf_counter() - begin) / number


def show(title: str, rows: list[Row]) -> None:
    """Print the rows as a table."""
    table = Table("what", "beside", "ours", "theirs", "ratio", "asked for", title=title)
    for row in rows:
        mark = "yes" if row.met else "[red]no[/red]"
        table.add_row(row.what, row.beside, seconds(row.ours), seconds(row.theirs), f"{row.ratio:.2f}x", f"{row.wanted} {mark}")
    Console(width=150).print(table)


def seconds(value: float) -> str:
    """A duration in the unit that fits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.0f} ns"
