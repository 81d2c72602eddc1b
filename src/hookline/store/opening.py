"""Opening files that others may replace meanwhile. Pipes and devices are refused, not waited for."""

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
    """The path with links resolved; StoreError where no file can have it as a name."""
    try:
        found = Path(path).resolve()
        os.fsencode(found)
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            found.stat()
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(f"{shortened(path)} cannot be the name of a file or folder: {reason(error)}") from None
    return found


def shortened(path: object) -> str:
    """A path for an error: what cannot be printed escaped, the middle of a long one left out."""
    text = str(path)
    text = text if text.isprintable() else ascii(text)
    return (
        text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[-LONGEST // 4 :]} ({len(text)} characters)"
    )


def reason(error: BaseException) -> str:
    """What an error of the system says, without its number and the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def opened(folder: Path, names: tuple[str, ...]) -> list[int | None]:
    """Descriptors of the files of a folder, None for those that it has not; all of one saved folder, also where another
    takes its place meanwhile.

    Raises NotADirectoryError or FileNotFoundError where there is no folder, StoreError where one is not a file.
    """
    missed = 0
    for _ in range(TRIES):
        place = folder if os.path.lexists(folder) else set_aside(path_of(folder)) or folder
        try:
            found = _opened_at(place, names)
        except FileNotFoundError:  # it is not there, or is just being replaced where names cannot be swapped
            missed += 1
            if missed == MISSES:
                raise
            continue
        if found is not None:
            return found
    raise StoreError(f"cannot read {folder}: it is replaced all the time")


def _opened_at(folder: Path, names: tuple[str, ...]) -> list[int | None] | None:
    """The same of a folder that keeps its place meanwhile; None where it did not."""
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
    """StoreError where something that has this path is not a file with data of its own."""
    kind = other_kind(found)
    if kind:
        raise StoreError(f"{path} is not a file but {kind}")


def other_kind(found: os.stat_result) -> str:
    """What something is that is not a file; nothing where it is one."""
    return "" if stat.S_ISREG(found.st_mode) else KINDS.get(stat.S_IFMT(found.st_mode), "something else")


def close(*descriptors: int | None) -> None:
    """Close what is open."""
    for descriptor in descriptors:
        if descriptor is not None:
            os.close(descriptor)
