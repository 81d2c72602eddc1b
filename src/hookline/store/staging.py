"""A hidden folder beside a target in which the next one is made. What a killed process left behind is swept later."""

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
    """A hidden folder beside a target, locked while this process lives, removed at the end.

    Its name is short however long the target's is. First it sweeps what killed processes left of the same target.
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
    """Remove what killed processes left of a target beside it, never what a living one is at. A target that one was
    killed in the midst of replacing is put back first."""
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
    """Remove such a folder. First the old run in it loses its name, by which a reader sees that files may be missing
    from it."""
    with suppress(OSError):
        (folder / OLD).rename(folder / "gone")
    shutil.rmtree(folder, ignore_errors=True)


def set_aside(target: Path) -> Path | None:
    """Where a target stands meanwhile that is being replaced, or whose replacement was killed; None where nowhere."""
    found = []
    for folder in _stages(target):
        with suppress(OSError):
            found.append(((folder / OLD).stat().st_mtime_ns, folder / OLD))
    return max(found)[1] if found else None


def _prefix(target: Path) -> str:
    """What the hidden names of one target begin with."""
    return f".hookline-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"


def _stages(target: Path) -> list[Path]:
    prefix = _prefix(target)
    try:
        with os.scandir(target.parent) as entries:
            return [Path(entry.path) for entry in entries if entry.name.startswith(prefix)]
    except OSError:
        return []


def _made(target: Path) -> tuple[Path, int | None]:
    """A new folder and its lock, which is None where the file system has no locks: then nobody sweeps either."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        lock = _lock(folder, wait=True)
        if folder.is_dir() and (lock is None or _is(lock, folder)):
            return folder, lock
        if lock is not None:  # another process has swept it before it was locked
            os.close(lock)


def _lock(folder: Path, *, wait: bool = False) -> int | None:
    """A lock of a folder that ends with its process at the latest; None where another has it, or none can be had."""
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
    """Whether an open folder still has that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
