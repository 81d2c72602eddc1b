"""A capture whose processes are killed, resumed, and compared with one that nobody disturbed.

    python crashes.py kills FOLDER HOW_MANY SEED     random kills -9, with 1, 2 and 4 processes
    python crashes.py faults FOLDER                  a kill after each write, sync, link and rename

It prints one line of JSON. Processes are forks of this one, which imports PyTorch and never uses it.
"""

import builtins
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

import hookline
from hookline.capturing import folder as folders

BATCH, UNIT = 4, 8
ENDED = 0


class Slow(torch.nn.Module):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.first = torch.nn.Linear(3, 5)
        self.second = torch.nn.Tanh()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.second(self.first(x))


def examples(count: int) -> list[dict[str, Any]]:
    chance = random.Random(0)
    return [
        {"name": f"e{number}", "x": [[chance.random() for _ in range(3)] for _ in range(chance.randrange(0, 6))]}
        for number in range(count)
    ]


def padded(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    x, mask = torch.zeros(len(batch["x"]), 6, 3), torch.zeros(len(batch["x"]), 6, dtype=torch.int64)
    for place, rows in enumerate(batch["x"]):
        if rows:
            x[place, : len(rows)], mask[place, : len(rows)] = torch.tensor(rows), 1
    return {"x": x, "mask": mask}


def capture(folder: Path, count: int, rank: int = 0, world: int = 1, seconds: float = 0.0) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(rank), str(world)
    hookline.capture(
        Slow(seconds).eval(),
        examples(count),
        ["first", "second"],
        to=folder,
        call=padded,
        rows=hookline.rows(mask="mask"),
        dtype=torch.bfloat16,
        batch=BATCH,
        unit=UNIT,
        id="name",
        progress=False,
    )


def forked(work: Any, *given: Any) -> int:
    """The number of a fork that does some work and ends."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work(*given)
        code = ENDED
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def content(folder: Path) -> dict[str, str]:
    """A digest of each file, but of the hidden ones and leases."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def undisturbed(folder: Path, examples: int) -> dict[str, str]:
    assert status_of(forked(capture, folder, examples)) == ENDED
    return content(folder)


def kills(root: Path, count: int, seed: int) -> dict[str, Any]:
    """Kill all processes at random moments, `count` times in all, and resume each time with another number."""
    chance = random.Random(seed)
    wanted = undisturbed(root / "whole", 96)
    done = captures = again = 0
    differ = []
    while done < count:
        folder = root / f"killed{captures}"
        captures += 1
        while True:
            world = chance.choice([1, 2, 4])
            before = len([*(folder / "units").glob("*.json")])
            pids = [forked(capture, folder, 96, rank, world, 0.004) for rank in range(world)]
            if done < count and chance.random() < 0.85:
                time.sleep(chance.uniform(0.0, 0.25))
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
                ended = [status_of(pid) for pid in pids]
                done += 1
                if all(code == ENDED for code in ended):
                    break
                continue
            codes = [status_of(pid) for pid in pids]
            again += before
            if codes != [ENDED] * world:
                differ.append(f"{folder.name}: exits {codes}")
            break
        if content(folder) != wanted:
            found = content(folder)
            names = [name for name in {*found, *wanted} if found.get(name) != wanted.get(name)]
            differ.append(f"{folder.name}: {sorted(names)[:4]}")
        shutil.rmtree(folder)
    return {"kills": done, "captures": captures, "differ": differ}


class Dies:
    """Counts the writes, syncs, links and renames of this process, and ends it after one of them."""

    def __init__(self, after: int) -> None:
        self.left = after
        for name in ("fsync", "replace", "link", "rename", "unlink", "open", "mkdir"):
            setattr(os, name, self.counted(getattr(os, name)))
        folders.open = self.opened  # type: ignore[attr-defined]

    def counted(self, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            made = function(*args, **kwargs)
            self.step()
            return made

        return call

    def opened(self, *args: Any, **kwargs: Any) -> Any:
        file = builtins.open(*args, **kwargs)  # noqa: SIM115
        if "w" not in args[1:2]:
            self.step()
        return file

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def dies(after: int, folder: Path) -> None:
    Dies(after)
    capture(folder, 20)


def faults(root: Path) -> dict[str, Any]:
    """End a capture after its first step on the disk, resume it; after its second; until it ends by itself."""
    wanted = undisturbed(root / "whole", 20)
    differ = []
    after = 0
    while True:
        after += 1
        folder = root / "faulty"
        code = status_of(forked(dies, after, folder))
        resumed = status_of(forked(capture, folder, 20))
        found = content(folder)
        if resumed != ENDED or found != wanted:
            names = [name for name in {*found, *wanted} if found.get(name) != wanted.get(name)]
            differ.append(f"after {after}: exit {resumed}, {sorted(names)[:4]}")
        shutil.rmtree(folder)
        if code == ENDED:
            return {"faults": after - 1, "differ": differ}


if __name__ == "__main__":
    what, root = sys.argv[1], Path(sys.argv[2])
    root.mkdir(parents=True, exist_ok=True)
    print(json.dumps(kills(root, int(sys.argv[3]), int(sys.argv[4])) if what == "kills" else faults(root)))
