"""How fast are the rows of a capture read, beside plain reads of the same files? All from the page cache: no disk."""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

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
            written(Path(folder))
            acts = hookline.open(folder)
            return [*passes(acts, sorted((Path(folder) / "data").iterdir()))]
    finally:
        torch.set_num_threads(threads)


def passes(acts: hookline.Capture, files: list[Path]) -> Iterator[Row]:
    """Each kind of pass beside reads into one buffer, as `dd` does, and beside reads into new memory for each batch:
    all in turns, by the clock and in CPU time of all threads."""
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
            clock, cpu = time.perf_counter(), time.process_time()
            programs[name]()
            if round:  # the first one warms up
                times[name].append((time.perf_counter() - clock, time.process_time() - cpu))
    for ours, theirs in product(names[:2], names[2:]):
        for place, kind in enumerate(("", ", CPU time")):
            mine, other = ([each[place] for each in times[name]] for name in (ours, theirs))
            ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
            yield Row(f"{ours}{kind}", theirs, statistics.median(mine), statistics.median(other), ratio, "≥0.9")


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


def written(folder: Path) -> None:
    """A capture of one point, as `hookline.capture` writes it."""
    for within in ("units", "data"):
        (folder / within).mkdir()
    rows = EXAMPLES * POSITIONS
    signature = {"points": {"layer": "Linear"}, "unit": EXAMPLES, "examples": UNITS * EXAMPLES, "rows": "rows()"}
    header = {"format": 1, "kind": "capture", "model": "Model", "signature": signature, "versions": {}}
    (folder / "capture.json").write_text(json.dumps(header))
    offsets = torch.arange(0, rows + 1, POSITIONS)
    for unit in range(UNITS):
        name = f"data/{unit:06}.0.safetensors"
        save_file({"values": torch.randn(rows, WIDTH), "offsets": offsets}, folder / name)
        files = [{"name": name, "bytes": (folder / name).stat().st_size}]
        start = unit * EXAMPLES
        record: dict[str, Any] = {
            **{"unit": unit, "start": start, "examples": EXAMPLES, "ids": [*range(start, start + EXAMPLES)]},
            "skipped": {},
            "points": {"layer": {"dtype": "float32", "shape": [WIDTH], "rows": rows, "files": files}},
        }
        (folder / f"units/{unit:06}.json").write_text(json.dumps(record))
