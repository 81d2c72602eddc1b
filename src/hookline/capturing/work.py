"""The work of one process: it takes units that are free, runs the model over them, and hands them to a writer."""

import json
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from hookline.capturing.batches import Batches
from hookline.capturing.block import Kind
from hookline.capturing.examples import Examples
from hookline.capturing.folder import Folder, Lease
from hookline.capturing.units import Unit, expect_same, points_of

WAITING = 2  # units that wait for the writer at most
POLL = 0.2  # seconds between two looks at units that others are at
NAME = re.compile(r"\d{6,}\.json$")  # of a record
END = "end.json"  # how many examples a stream has, once it is known


class Writer:
    """Writes units on a thread of its own, in the order in which they come. A full queue makes the caller wait."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.queue: queue.Queue[tuple[Unit, Lease] | None] = queue.Queue(maxsize=WAITING)
        self.error: BaseException | None = None
        self.waited = 0.0
        self.thread = threading.Thread(target=self._run, name="hookline capture writer", daemon=True)
        self.thread.start()

    def write(self, unit: Unit, lease: Lease) -> None:
        """Hand over a unit; raises what went wrong with an earlier one."""
        self._check()
        began = time.perf_counter()
        self.queue.put((unit, lease))
        self.waited += time.perf_counter() - began

    def close(self) -> None:
        """Wait until all is written."""
        self.queue.put(None)
        self.thread.join()
        self._check()

    def _check(self) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def _run(self) -> None:
        while True:
            given = self.queue.get()
            if given is None:
                return
            unit, lease = given
            try:
                if self.error is None:
                    unit.write(self.folder)
            except BaseException as error:
                self.error = error
            finally:
                lease.end()


@dataclass(slots=True)
class Progress:
    """What a process has done: `done` of `units` are on disk, by whomever; `seconds` since it began, of which it waited
    `waited` for the disk; `examples` that it ran itself."""

    units: int | None
    done: int = 0
    examples: int = 0
    seconds: float = 0.0
    waited: float = 0.0


@dataclass(slots=True)
class Work:
    """The work of one process.

    - `size`: how many examples a unit has; `rank`, `world`: where this process begins among the units;
    - `tell`: a function that receives the progress after each unit;
    - `in_step`: whether the model is spread over the processes, so that all run the same batches; `writes`: whether
      this process writes what it runs.
    """

    folder: Folder
    batches: Batches
    size: int
    rank: int = 0
    world: int = 1
    tell: Callable[[Progress], None] = lambda progress: None
    in_step: bool = False
    writes: bool = True
    points: dict[str, Kind] | None = None
    progress: Progress = field(default_factory=lambda: Progress(None))

    def run(self) -> None:
        """Do what is free, until nothing is left to do for anybody."""
        began = time.perf_counter()
        writer = Writer(self.folder)
        if self.examples.count is None:
            self.examples.count = end_of(self.folder)
        self.progress = Progress(self.units())
        try:
            for number, lease in self._in_step() if self.in_step else self._free():
                try:
                    unit = self._unit(number)
                    if unit is not None and self.writes:
                        self._expect_same(unit)
                        writer.write(unit, lease)
                        lease = Lease()  # the writer ends it
                finally:
                    lease.end()
                if unit is None:
                    continue
                self.progress.done += 1
                self.progress.examples += len(unit.ids)
                self.progress.seconds, self.progress.waited = time.perf_counter() - began, writer.waited
                self.tell(self.progress)
        finally:
            writer.close()
        if self.in_step:
            torch.distributed.barrier()

    @property
    def examples(self) -> Examples:
        """The data set."""
        return self.batches.examples

    def units(self) -> int | None:
        """How many units there are; None where the end of a stream is not known."""
        count = self.examples.count
        return None if count is None else -(-count // self.size)

    def _in_step(self) -> Iterator[tuple[int, Lease]]:
        """The same for a model that is spread over the processes: all run the same units, the first one takes them and
        writes them."""
        broadcast = torch.distributed.broadcast_object_list
        if self.rank == 0:
            for number, lease in self._free():
                broadcast([number])
                yield number, lease
            broadcast([None])
            return
        while True:
            told: list[Any] = [None]
            broadcast(told)
            if told[0] is None:
                return
            yield told[0], Lease()

    def _free(self) -> Iterator[tuple[int, Lease]]:
        """The units that nobody has done, each with its lease. Where others are at the last ones, it waits until they
        have done them, or are gone."""
        begin = 0 if self.progress.units is None else self.progress.units * self.rank // self.world
        while True:
            if self.examples.count is None:
                yield from self._stream()
            if self.examples.is_stream:
                self.folder.commit(END, json.dumps({"examples": self.examples.count}).encode())
            count = self.progress.units = self.units()
            assert count is not None
            done = {int(name.split(".")[0]) for name in self.folder.names("units") if NAME.match(name)}
            self.progress.done = len(done)
            left = [number for number in (*range(begin, count), *range(begin)) if number not in done]
            if not left:
                return
            taken = 0
            for number in left:
                lease = self._take(number)
                if lease is not None:
                    taken += 1
                    yield number, lease
            if not taken:
                time.sleep(POLL)

    def _take(self, number: int) -> Lease | None:
        """The lease of a unit that is not done."""
        name = f"{number:06}"
        if self.folder.read(f"units/{name}.json") is not None:
            return None
        lease = self.folder.lease(name)
        if lease is not None and self.folder.read(f"units/{name}.json") is not None:  # done since the look before
            lease.end()
            return None
        return lease

    def _stream(self) -> Iterator[tuple[int, Lease]]:
        """The same for a stream whose end is not known, until it is."""
        number = 0
        while self.examples.count is None:
            lease = self._take(number)
            if lease is not None:
                yield number, lease
            number += 1
            if self.examples.count is None:
                self.examples.count = end_of(self.folder)

    def _expect_same(self, unit: Unit) -> None:
        """CaptureError where a unit has other points, or rows of another shape or dtype, than those before."""
        own = unit.points()
        if not own:
            return
        if self.points is None:
            there = next((name for name in self.folder.names("units") if NAME.match(name)), None)
            record = json.loads(self.folder.read(f"units/{there}") or b"{}") if there else {}
            self.points = points_of(record) or own
        expect_same(self.points, own)

    def _unit(self, number: int) -> Unit | None:
        """The rows of a unit; None of one that lies after the end of a stream."""
        start = number * self.size
        known = self.examples.count
        stop = start + self.size if known is None else min(start + self.size, known)
        unit = Unit(number, start)
        for taken in self.batches.run(start, stop):
            unit.ids.extend(taken.ids)
            unit.batches.extend(taken.found)
            unit.skipped.update(taken.skipped)
        return unit if unit.ids else None


def end_of(folder: Folder) -> int | None:
    """How many examples a stream has; None where nobody has come to its end yet."""
    content = folder.read(END)
    return None if content is None else int(json.loads(content)["examples"])
