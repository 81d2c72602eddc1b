"""Open files that other processes may replace meanwhile. Pipes and devices are refused without waiting."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from hookline.errors import StoreError
from hookline.store.staging import set_aside

TRIES, MISSES = 1000, 5
BY_DESCRIPTOR = os.open in os.supports_dir_fd
FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
FILE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
LONGEST = 80  # characters of a name in an error


def path_of(path: str | os.PathLike[str]) -> Path:
    """The path with links resolved; StoreError where no file can have this name."""
    try:
        found = Path(path).resolve()
        os.fsencode(found)
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            found.stat()
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(f"{shortened(path)} cannot be the name of a file or folder: {reason(error)}") from None
    return found


def shortened(path: object) -> str:
    """A path for an error: escaped if it is not printable, without its middle if it is long."""
    text = str(path)
    text = text if text.isprintable() else ascii(text)
    return (
        text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[-LONGEST // 4 :]} ({len(text)} characters)"
    )


def reason(error: BaseException) -> str:
    """The message of a system error, without its number and path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def opened(folder: Path, names: tuple[str, ...]) -> list[int | None]:
    """Descriptors of these files of a folder, None for missing ones.

    All are of one saved folder, even if another one replaces it meanwhile. Raises NotADirectoryError or
    FileNotFoundError without such a folder, StoreError where one of them is not a file.
    """
    missed = 0
    for _ in range(TRIES):
        place = folder if os.path.lexists(folder) else set_aside(path_of(folder)) or folder
        try:
            found = _opened_at(place, names)
        except FileNotFoundError:  # it does not exist, or is being replaced on a system that cannot swap names
            missed += 1
            if missed == MISSES:
                raise
            continue
        if found is not None:
            return found
    raise StoreError(f"cannot read {folder}: other processes keep replacing it")


def _opened_at(folder: Path, names: tuple[str, ...]) -> list[int | None] | None:
    """The same for a folder, or None if it was replaced meanwhile."""
    own = os.open(folder, FOLDER) if BY_DESCRIPTOR else None
    found: list[int | None] = []
    try:
        before = os.stat(folder) if own is None else os.fstat(own)
        for name in names:
            found.append(_open(folder, name, own))
        if _still(folder, before):
            kept, found = found, []
            return kept
        return None
    finally:
        close(*found, own)


def _open(folder: Path, name: str, own: int | None) -> int | None:
    try:
        descriptor = os.open(folder / name, FILE) if own is None else os.open(name, FILE, dir_fd=own)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {folder / name}: {reason(error)}") from None
    try:
        expect_regular(folder / name, os.fstat(descriptor))
    except StoreError:
        os.close(descriptor)
        raise
    return descriptor


def _still(folder: Path, before: os.stat_result) -> bool:
    try:
        return os.path.samestat(before, os.stat(folder))
    except OSError:
        return False


def expect_regular(path: Path, found: os.stat_result) -> None:
    """StoreError where the file status is not that of a regular file."""
    kind = other_kind(found)
    if kind:
        raise StoreError(f"{path} is not a file but {kind}")


def other_kind(found: os.stat_result) -> str:
    """What a file status is of, "" for a regular file."""
    return "" if stat.S_ISREG(found.st_mode) else KINDS.get(stat.S_IFMT(found.st_mode), "something else")


def close(*descriptors: int | None) -> None:
    """Close the descriptors that are not None."""
    for descriptor in descriptors:
        if descriptor is not None:
            os.close(descriptor)
