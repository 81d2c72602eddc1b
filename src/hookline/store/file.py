"""A file of text, written whole or not at all."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from hookline.errors import StoreError
from hookline.store.opening import expect_regular, path_of, reason
from hookline.store.staging import staging


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file, whole or not at all; StoreError where it cannot be written.

    A lone surrogate, which no file of UTF-8 holds, is written as its escape.
    """
    target = path_of(path)
    expect_not_special(target)
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
    target = path_of(path)
    expect_not_special(target)
    try:
        expect_room(target.parent)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {reason(error)}: {str(target.parent)!r}") from error


def expect_not_special(target: Path) -> None:
    """StoreError where a folder, a pipe or a device is there: a file would take its place."""
    with suppress(FileNotFoundError, NotADirectoryError):
        try:
            expect_regular(target, target.stat())
        except StoreError as error:
            raise StoreError(f"cannot write {target}: {str(error).removeprefix(f'{target} ')}") from None
        except PermissionError as error:
            raise StoreError(f"cannot write {target}: {reason(error)}") from None


def expect_room(folder: Path) -> None:
    """OSError where nothing can be made in a folder. Permissions alone do not tell, of a file system say."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def on_disk(*paths: Path) -> None:
    """Wait until files and folders are on the disk, so that a name never outlives a loss of power that its data does
    not. A file system that cannot say so is not waited for."""
    for path in paths:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
