"""Journal: the figures of every sampled step on disk, as they come; a run that is killed and resumed keeps one course.

    journal.json              what is measured, of which model
    part-000000000000.jsonl   the samples of one process from a step on, a line each

A line is `{"series": [[path, of, figure], ...]}`, the names of all values from there on, or `{"step": 12, "time": ...,
"values": [...]}`, or `{"alert": {...}}`. A number that is not finite is null. A part counts up to the step at which the
next part begins: a run that was resumed at an earlier step begins a part there. A line without its end, which a killed
process leaves, does not count.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from hookline.errors import StoreError
from hookline.store.file import on_disk
from hookline.store.folder import FORMAT
from hookline.store.opening import path_of, reason

VERSION = 1
HEADER = "journal.json"
SYNC = 30.0  # seconds between two syncs: what a machine that stops may lose
Name: TypeAlias = tuple[str, str, str]
"""A series: a path, what it is of, a figure."""


class Journal:
    """Writes samples to a folder."""

    def __init__(self, folder: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
        self.folder = path_of(folder)
        self.header = {"format": FORMAT, "version": VERSION, **header}
        self.names = 0
        self.file: TextIO | None = None
        self.synced = 0.0
        self._expect_ours()

    def _expect_ours(self) -> None:
        """Make the folder; StoreError where it cannot be, or where it is of something else."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            there = self.folder / HEADER
            if not there.exists():
                strange = sorted(name for name in os.listdir(self.folder) if not name.startswith("."))
                if strange:
                    raise StoreError(f"{self.folder} holds {strange[0]} and no run of a monitor; give another folder")
                beside = self.folder / f".{HEADER}-{os.getpid()}"
                beside.write_text(json.dumps(self.header), encoding="utf-8")
                on_disk(beside)
                os.replace(beside, there)
                return
            before = read_header(self.folder)
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {reason(error)}") from error
        if before["model"] != self.header["model"]:
            raise StoreError(
                f"{self.folder} holds the run of a {before['model']}, and this model is a {self.header['model']}; give "
                "another folder, or remove that one"
            )

    def write(self, step: int, names: Sequence[Name], values: Sequence[float]) -> None:
        """Add the sample of a step. The first one begins a part, which takes the place of later steps there."""
        try:
            if self.file is None:
                self.file = open(self._part(step), "w", encoding="utf-8")  # noqa: SIM115
            if len(names) != self.names:
                self._line({"series": [*names]})
                self.names = len(names)
            told = [value if math.isfinite(value) else None for value in values]
            self._line({"step": step, "time": round(time.time(), 3), "values": told})
            self.file.flush()
            if time.monotonic() - self.synced > SYNC:
                os.fsync(self.file.fileno())
                self.synced = time.monotonic()
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder}: {reason(error)}") from error

    def alert(self, told: Mapping[str, Any]) -> None:
        """Add an alert, after the sample that it is of."""
        self._line({"alert": told})
        if self.file is not None:
            self.file.flush()

    def _part(self, step: int) -> Path:
        """The file of a part that begins at a step. A part that begins there already, or later, is of steps that are
        done again: it is set aside."""
        for path in parts_of(self.folder):
            if first_of(path) >= step:
                os.replace(path, path.with_name(f".{path.name}-{time.time_ns()}"))
        return self.folder / f"part-{step:012}.jsonl"

    def _line(self, told: Mapping[str, Any]) -> None:
        if self.file is not None:
            self.file.write(json.dumps(told, allow_nan=False, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """End the part; the next sample begins another."""
        if self.file is not None:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            self.file, self.names = None, 0

    def __del__(self) -> None:
        if getattr(self, "file", None) is not None:
            self.file.close()  # type: ignore[union-attr]


def read_header(folder: Path) -> dict[str, Any]:
    """What a folder says of its run; StoreError where it is none."""
    try:
        header = json.loads((folder / HEADER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{folder} holds no run of a monitor: there is no {HEADER}") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / HEADER} is damaged: {error}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT or header.get("version") != VERSION:
        raise StoreError(f"{folder / HEADER} has another format than this hookline reads; update hookline")
    return header


def parts_of(folder: Path) -> list[Path]:
    """The parts in the order of their steps."""
    return sorted(folder.glob("part-*.jsonl"))


def first_of(path: Path) -> int:
    """The step at which a part begins."""
    return int(path.stem.removeprefix("part-"))


def lines_of(folder: Path, *, begin: int = 0) -> Iterator[tuple[dict[str, Any], list[Name]]]:
    """The lines of a run in order, each with the names of the values. A part counts up to where the next one begins."""
    parts = parts_of(folder)
    for place, path in enumerate(parts):
        end = first_of(parts[place + 1]) if place + 1 < len(parts) else math.inf
        if end <= begin:
            continue
        names: list[Name] = []
        try:
            with open(path, encoding="utf-8") as file:
                for text in file:
                    if not text.endswith("\n"):
                        break
                    line = json.loads(text)
                    if "series" in line:
                        names = [(path, of, figure) for path, of, figure in line["series"]]
                    elif line.get("step", line.get("alert", {}).get("step", 0)) >= end:
                        break
                    else:
                        yield line, names
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{path} is damaged: {error}") from None
