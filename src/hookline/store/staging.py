"""A hidden folder next to a target, in which the next version is written. Leftovers of killed processes are swept."""

import errno
import hashlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

OLD = "old"  # what stood at the target, while it is replaced where names cannot be swapped


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A hidden folder next to a target, locked while this process lives and removed at the end.

    Its name is short, however long that of the target is. Leftovers of killed processes for the same target are swept
    first.
    """
    sweep(target)
    folder, lock = _made(target)
    try:
        yield folder
    finally:
        remove(folder)
        if lock is not None:
            os.close(lock)


def sweep(target: Path) -> None:
    """Remove the hidden folders that killed processes left for a target, but none of a living process.

    A target whose replacement was interrupted by the kill is restored first.
    """
    for folder in _stages(target):
        lock = _lock(folder)
        if lock is None:
            continue
        try:
            if not os.path.lexists(target) and (folder / OLD).is_dir():
                with suppress(OSError):
                    (folder / OLD).rename(target)
            remove(folder)
        finally:
            os.close(lock)


def remove(folder: Path) -> None:
    """Remove a hidden folder. The old run in it is renamed first, which shows a reader that files may be missing."""
    with suppress(OSError):
        (folder / OLD).rename(folder / "gone")
    shutil.rmtree(folder, ignore_errors=True)


def set_aside(target: Path) -> Path | None:
    """The temporary place of a target that is being replaced, or whose replacement was killed; None without one."""
    found = []
    for folder in _stages(target):
        with suppress(OSError):
            found.append(((folder / OLD).stat().st_mtime_ns, folder / OLD))
    return max(found)[1] if found else None


def _prefix(target: Path) -> str:
    """The prefix of the hidden names for one target."""
    return f".hookline-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"


def _stages(target: Path) -> list[Path]:
    prefix = _prefix(target)
    try:
        with os.scandir(target.parent) as entries:
            return [Path(entry.path) for entry in entries if entry.name.startswith(prefix)]
    except OSError:
        return []


def _made(target: Path) -> tuple[Path, int | None]:
    """A new folder and its lock, which is None on a file system without locks, where nothing is swept either."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        lock = _lock(folder, wait=True)
        if folder.is_dir() and (lock is None or _is(lock, folder)):
            return folder, lock
        if lock is not None:  # another process has swept it before it was locked
            os.close(lock)


def _lock(folder: Path, *, wait: bool = False) -> int | None:
    """A lock on a folder that ends with the process at the latest; None if another process has it, or without locks."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is(descriptor: int, folder: Path) -> bool:
    """Whether an open folder still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
