"""Write a text file, whole or not at all."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from hookline.errors import StoreError
from hookline.store.opening import other_kind, path_of, reason
from hookline.store.staging import staging


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file, whole or not at all; StoreError where it cannot be written.

    A lone surrogate, which UTF-8 cannot encode, is written as its escape.
    """
    target = _target(path)
    try:
        with staging(target) as beside:
            fresh = beside / "fresh"
            fresh.write_bytes(text.encode("utf-8", errors="backslashreplace"))
            on_disk(fresh)
            fresh.replace(target)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {reason(error)}") from error


def expect_file(path: str | os.PathLike[str]) -> None:
    """StoreError where `write_text` could not write this file."""
    target = _target(path)
    try:
        expect_room(target.parent)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {reason(error)}: {str(target.parent)!r}") from error


def _target(path: str | os.PathLike[str]) -> Path:
    """The path to write a file to; StoreError where a folder, a pipe or a device is there."""
    target = path_of(path)
    try:
        kind = other_kind(target.stat())
    except (FileNotFoundError, NotADirectoryError):
        return target
    except OSError as error:
        raise StoreError(f"cannot write {path}: {reason(error)}") from None
    if kind:
        raise StoreError(f"cannot write {path}: it is {kind}")
    return target


def expect_room(folder: Path) -> None:
    """OSError where no file can be created in a folder. Permissions alone do not show that."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def on_disk(*paths: Path) -> None:
    """Wait until files and folders are on the disk, so that after a loss of power no name exists without its data.

    A file system that does not support this is not waited for.
    """
    for path in paths:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
