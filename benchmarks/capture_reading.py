"""How fast are the rows of a capture read, from the disk and from memory, compared with plain reads of the files?"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import torch
from torch import nn

import hookline
from benchmarks.ratios import Row

ROUNDS = int(os.environ.get("HOOKLINE_BENCH_ROUNDS", "11"))
UNITS, EXAMPLES, POSITIONS, WIDTH = 8, 256, 200, 768  # 1.26 GB of float32
BATCH, BLOCK = 4096, 2**21


def rows() -> list[Row]:
    """Passes in order and shuffled. PyTorch has one thread: its others and the one that reads share two cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            acts = written(Path(folder))
            files = sorted((Path(folder) / "data").iterdir())
            return [*passes(acts, files, cold=True), *passes(acts, files, cold=False)]
    finally:
        torch.set_num_threads(threads)


def passes(acts: hookline.Capture, files: list[Path], *, cold: bool) -> Iterator[Row]:
    """Each kind of pass next to reads into one buffer, as `dd` does, and next to reads into new memory for each batch:
    all in turns, by the clock and in CPU time of all threads. A cold pass finds none of the files in the page cache."""
    ordered, shuffled = acts.torch(batch=BATCH, shuffle=False), acts.torch(batch=BATCH)
    programs: dict[str, Callable[[], int]] = {
        "a pass in order": lambda: sum(map(len, ordered)),
        "a pass shuffled": lambda: sum(map(len, shuffled)),
        "read, 2 MiB at a time into one buffer": lambda: read(files),
        "read into new memory for each batch": lambda: read_batches(files),
    }
    names = [*programs]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for round in range(ROUNDS + 1):
        for name in names[round % len(names) :] + names[: round % len(names)]:
            if cold:
                forget(files)
            clock, cpu = time.perf_counter(), time.process_time()
            programs[name]()
            if round:  # the first one warms up
                times[name].append((time.perf_counter() - clock, time.process_time() - cpu))
    source = "from the disk" if cold else "from the page cache"
    for ours, theirs in product(names[:2], names[2:]):
        for place, kind in enumerate(("", ", CPU time")):
            mine, other = ([each[place] for each in times[name]] for name in (ours, theirs))
            ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
            wanted = "≥0.9" if cold and not kind else ""
            yield Row(
                f"{ours}, {source}{kind}", theirs, statistics.median(mine), statistics.median(other), ratio, wanted
            )


def read(files: list[Path]) -> int:
    """All bytes, into memory that is used again."""
    buffer, count = bytearray(BLOCK), 0
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while got := file.readinto(buffer):
                count += got
    return count


def read_batches(files: list[Path]) -> int:
    """All bytes, into memory that is new for each batch."""
    count = 0
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while got := file.read(BATCH * WIDTH * 4):
                count += len(got)
    return count


def forget(files: list[Path]) -> None:
    """Take files out of the page cache, so that the next read comes from the disk."""
    for path in files:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def written(folder: Path) -> hookline.Capture:
    """A capture of one point."""
    seeds = [*range(UNITS * EXAMPLES)]

    def made(batch: list[int]) -> torch.Tensor:
        return torch.randn(len(batch), POSITIONS, WIDTH)

    return hookline.capture(
        nn.Identity(),
        seeds,
        "",
        to=folder,
        call=made,
        rows=hookline.rows(),
        batch=32,
        unit=EXAMPLES,
        progress=False,
    )
