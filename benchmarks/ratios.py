"""How each figure is made: two programs interleaved in one process, the ratio of each round, the median of these."""

import gc
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from timeit import Timer
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table

ROUNDS = int(os.environ.get("HOOKLINE_BENCH_ROUNDS", "41"))

Program: TypeAlias = Callable[[], AbstractContextManager[Timer]]  # sets up, gives what is timed, and takes down again


@dataclass(frozen=True, slots=True)
class Row:
    """One question: seconds of ours and of theirs, their ratio, and what it is to be: "≥2.5" times faster, or "≤1.05"
    times the time; a sign alone where nothing was asked for."""

    what: str
    beside: str
    ours: float
    theirs: float
    ratio: float
    wanted: str

    @property
    def met(self) -> bool:
        """Whether the ratio is what was asked for."""
        if not self.wanted[1:]:
            return True
        bound = float(self.wanted[1:])
        return self.ratio >= bound if self.wanted.startswith("≥") else self.ratio <= bound


def compare(
    what: str, ours: Program, beside: str, theirs: Program, *, wanted: str, number: int, rounds: int = ROUNDS
) -> Row:
    """One row: the median over the rounds of theirs over ours (wanted "≥..."), else of ours over theirs."""
    for program in (ours, theirs) * 2:
        seconds_of(program, number)

    pairs = []
    for round in range(rounds):
        first, second = (ours, theirs) if round % 2 else (theirs, ours)
        times = {first: seconds_of(first, number), second: seconds_of(second, number)}
        pairs.append((times[ours], times[theirs]))
    ratio = statistics.median(b / a if wanted.startswith("≥") else a / b for a, b in pairs)
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(what, beside, mine, other, ratio, wanted)


def compare_added(
    what: str,
    ours: Program,
    beside: str,
    theirs: Program,
    plain: Program,
    *,
    wanted: str,
    number: int,
    rounds: int = ROUNDS,
) -> Row:
    """One row about what two programs cost beyond a third: the median over the rounds of theirs over ours."""
    programs = (ours, theirs, plain)
    for program in programs * 2:
        seconds_of(program, number)

    added = []
    for round in range(rounds):
        order = programs if round % 2 else programs[::-1]
        times = {program: seconds_of(program, number) for program in order}
        added.append((times[ours] - times[plain], times[theirs] - times[plain]))
    mine, other = (statistics.median(column) for column in zip(*added, strict=True))
    return Row(what, beside, mine, other, other / mine, wanted)


def seconds_of(program: Program, number: int) -> float:
    """Seconds of one run of what a program times, from `number` of them in a row, without the garbage collector."""
    with program() as timer:
        gc.collect()
        return timer.timeit(number) / number


def once_set_up(statement: str, **names: Any) -> Program:
    """A program without set-up of its own: the statement, with these names."""
    timer = Timer(statement, globals=names)

    @contextmanager
    def program() -> Iterator[Timer]:
        yield timer

    return program


def show(title: str, rows: list[Row]) -> None:
    """Print the rows as a table."""
    table = Table("what", "beside", "ours", "theirs", "ratio", "asked for", title=title, title_justify="left")
    for row in rows:
        verdict = "" if row.met else " [bold red]short of it[/]"
        table.add_row(
            row.what,
            row.beside,
            duration(row.ours),
            duration(row.theirs),
            f"{row.ratio:.2f}x",
            f"{row.wanted}x{verdict}" if row.wanted[1:] else "",
        )
    Console(width=150).print(table)


def duration(seconds: float) -> str:
    """A duration in the unit that fits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.0f} ns"
