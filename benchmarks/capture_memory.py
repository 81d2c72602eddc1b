"""`python -m benchmarks.capture_memory FOLDER [GB]`: how much memory reading a large capture takes, in MB.

Writes a capture to the folder, by default of 10.5 GB, or uses the one that is there. Each way to read it runs in a
process of its own, beyond whose memory before it the figures are: anonymous, of mapped files, and both.
"""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import hookline

POSITIONS, WIDTH, UNIT = 200, 768, 256
NAMES = ("RssAnon", "RssFile", "VmRSS")


class Expands(nn.Module):
    """Makes of one number the 200 rows of an example, which costs almost no time."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Identity()
        self.register_buffer("base", torch.randn(POSITIONS, WIDTH, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        """[examples, 200, 768] of [examples]."""
        made: Tensor = self.rows(self.base + x[:, None, None])  # type: ignore[operator]
        return made


class Peak(threading.Thread):
    """The most memory while a program runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.ends = memory(), threading.Event()
        self.start()

    def run(self) -> None:
        """Look every few milliseconds."""
        while not self.ends.wait(0.005):
            self.most = [max(pair) for pair in zip(self.most, memory(), strict=True)]


def memory() -> list[float]:
    """MB of this process that are resident: anonymous, of files, both."""
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return [int(told[name].split()[0]) / 1024 for name in NAMES]


def opened(acts: hookline.Capture) -> None:
    """Nothing more than opening."""


def at_random(acts: hookline.Capture) -> None:
    chosen, point = random.Random(0), acts["rows"]
    for _ in range(1000):
        assert point[chosen.randrange(len(point))].shape == (POSITIONS, WIDTH)


def in_order(acts: hookline.Capture) -> None:
    assert sum(map(len, acts.torch(shuffle=False))) == acts["rows"].rows


def shuffled(acts: hookline.Capture) -> None:
    assert sum(map(len, acts.torch(buffer=2**26))) == acts["rows"].rows


WAYS: dict[str, Callable[[hookline.Capture], None]] = {
    "opened": opened,
    "1000 examples at random": at_random,
    "a pass in order": in_order,
    "a pass shuffled, buffer=2**26": shuffled,
}


def main(folder: str, gigabytes: str = "10.5") -> None:
    """Write the capture, and read it in every way."""
    count = UNIT * max(1, round(float(gigabytes) * 1e9 / (UNIT * POSITIONS * WIDTH * 4)))
    model, rows = Expands().eval(), hookline.rows()
    print(hookline.capture(model, torch.arange(float(count)), "rows", to=folder, rows=rows, unit=UNIT).summary)
    for way in WAYS:
        subprocess.run([sys.executable, "-m", "benchmarks.capture_memory", "read", folder, way], check=True)


def read(folder: str, way: str) -> None:
    """Read it in one way, and print the memory at most and at the end."""
    torch.set_num_threads(1)
    hookline.open(folder)["rows"][0]  # what is imported on demand is imported
    before, peak, began = memory(), Peak(), time.perf_counter()
    WAYS[way](hookline.open(folder))
    seconds, last = time.perf_counter() - began, memory()
    peak.ends.set()
    peak.join()
    for what, found in (("at most", peak.most), ("at the end", last)):
        figures = (f"{name} {now - then:.1f}" for name, now, then in zip(NAMES, found, before, strict=True))
        print(f"{way}, {what}:", *figures)
    print(f"{way}: {seconds:.1f} s")


if __name__ == "__main__":
    read(*sys.argv[2:]) if sys.argv[1:2] == ["read"] else main(*sys.argv[1:])
