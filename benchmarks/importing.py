"""What does `import hookline` cost beyond `import torch`? At most 0.15 s."""

import statistics
import subprocess
import sys
import time

from benchmarks.ratios import Row

MOST = 0.15
ROUNDS = 15


def rows() -> list[Row]:
    """Both imports in new processes, interleaved; the goal of 0.15 s is written as a ratio to torch's own import."""
    pairs = [(seconds_to("import torch, hookline"), seconds_to("import torch")) for _ in range(ROUNDS)]
    more = statistics.median(ours - theirs for ours, theirs in pairs)
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    what, goal = f"import torch, hookline: {more:+.3f} s", f"≤{1 + MOST / theirs:.2f}"
    return [Row(what, "import torch", ours, theirs, 1 + more / theirs, goal)]


def seconds_to(program: str) -> float:
    """Seconds that a new interpreter takes to run a program."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - begin
