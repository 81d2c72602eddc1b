"""Put a complete folder in its place at once: readers find the old or the new one, and a killed process loses
neither."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hookline.store.exchange import exchange
from hookline.store.staging import OLD

TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
TRIES = 1000  # each lost to another process that put its own there: the last one to come through stays


def put_in_place(fresh: Path, target: Path, expect: Callable[[], None]) -> None:
    """Give a folder the name `target`. A folder with that name moves into the folder around `fresh`, to be removed.

    `expect` raises for a folder that may not be replaced. The last of several processes wins, and none fails. Where
    names cannot be swapped, the old folder has the name `OLD` for a moment; `staging.set_aside` finds it there.
    """
    for number in range(TRIES):
        if _moved(fresh, target):
            return
        expect()
        with suppress(FileNotFoundError):  # another process is at the same: look again
            if exchange(fresh, target):
                return
            if _moved_in_turn(fresh, target, fresh.with_name(OLD), number):
                return
    raise OSError(errno.EBUSY, "other processes keep replacing it", str(target))


def _moved(fresh: Path, target: Path) -> bool:
    """Whether the folder could be moved to a free name, or over an empty folder."""
    try:
        os.rename(fresh, target)
    except OSError as error:
        if error.errno in TAKEN:
            return False
        raise
    return True


def _moved_in_turn(fresh: Path, target: Path, old: Path, number: int) -> bool:
    """Move the old folder away and the fresh one in; False if another process interfered."""
    with suppress(FileNotFoundError):  # it is left from a try before, with which another process interfered
        os.rename(old, old.with_name(f"gone{number}"))
    os.rename(target, old)
    try:
        return _moved(fresh, target)
    except BaseException:
        _moved(old, target)
        raise
