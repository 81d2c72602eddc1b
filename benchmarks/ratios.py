"""How each figure is made: two programs interleaved in one process, the ratio of each round, the median of these."""

import gc
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from timeit import Timer
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table

ROUNDS = int(os.environ.get("HOOKLINE_BENCH_ROUNDS", "41"))

Program: TypeAlias = Callable[[], AbstractContextManager[Timer]]  # sets up, yields what is timed, and cleans up


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    - `what`, `compared_with`: the two programs; `ours`, `theirs`: their times in seconds;
    - `ratio`: the ratio of these times; `goal`: its goal, "≥2.5" for 2.5 times as fast or "≤1.05" for 1.05 of the time,
      or a sign alone without a goal.
    """

    what: str
    compared_with: str
    ours: float
    theirs: float
    ratio: float
    goal: str

    @property
    def met(self) -> bool:
        """Whether the ratio meets the goal."""
        if not self.goal[1:]:
            return True
        bound = float(self.goal[1:])
        return self.ratio >= bound if self.goal.startswith("≥") else self.ratio <= bound


def compare(
    what: str, ours: Program, compared_with: str, theirs: Program, *, goal: str, number: int, rounds: int = ROUNDS
) -> Row:
    """One row: the median over the rounds of theirs over ours for a goal "≥...", else of ours over theirs."""
    for program in (ours, theirs) * 2:
        seconds_of(program, number)

    pairs = []
    for round in range(rounds):
        first, second = (ours, theirs) if round % 2 else (theirs, ours)
        times = {first: seconds_of(first, number), second: seconds_of(second, number)}
        pairs.append((times[ours], times[theirs]))
    ratio = statistics.median(b / a if goal.startswith("≥") else a / b for a, b in pairs)
    mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(what, compared_with, mine, other, ratio, goal)


def compare_added(
    what: str,
    ours: Program,
    compared_with: str,
    theirs: Program,
    plain: Program,
    *,
    goal: str,
    number: int,
    rounds: int = ROUNDS,
) -> Row:
    """One row about the time that two programs add to a third: the median over the rounds of theirs over ours."""
    programs = (ours, theirs, plain)
    for program in programs * 2:
        seconds_of(program, number)

    added = []
    for round in range(rounds):
        order = programs if round % 2 else programs[::-1]
        times = {program: seconds_of(program, number) for program in order}
        added.append((times[ours] - times[plain], times[theirs] - times[plain]))
    mine, other = (statistics.median(column) for column in zip(*added, strict=True))
    return Row(what, compared_with, mine, other, other / mine, goal)


def in_turns(programs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each program gives in each round, after one that warms up; every round begins with another program."""
    found: dict[str, list[float]] = {name: [] for name in programs}
    names = [*programs]
    for round in range(rounds + 1):
        for name in names[round % len(names) :] + names[: round % len(names)]:
            figure = programs[name]()
            if round:
                found[name].append(figure)
    return found


def seconds_of(program: Program, number: int) -> float:
    """Seconds of one run of a program's timer, the mean of `number` in a row, without the garbage collector."""
    with program() as timer:
        gc.collect()
        return timer.timeit(number) / number


def once_set_up(statement: str, **names: Any) -> Program:
    """A program without set-up: the statement, with these names."""
    timer = Timer(statement, globals=names)

    @contextmanager
    def program() -> Iterator[Timer]:
        yield timer

    return program


def show(title: str, rows: list[Row]) -> None:
    """Print the rows as a table."""
    table = Table("what", "compared with", "ours", "theirs", "ratio", "goal", title=title, title_justify="left")
    for row in rows:
        verdict = "" if row.met else " [bold red]missed[/]"
        table.add_row(
            row.what,
            row.compared_with,
            duration(row.ours),
            duration(row.theirs),
            f"{row.ratio:.2f}x",
            f"{row.goal}x{verdict}" if row.goal[1:] else "",
        )
    Console(width=150).print(table)


def duration(seconds: float) -> str:
    """A duration in the unit that fits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.0f} ns"
