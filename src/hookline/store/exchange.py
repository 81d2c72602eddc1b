"""Swap the names of two folders in one step, so that each name always has a folder."""

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeAlias

Swap: TypeAlias = Callable[[bytes, bytes], int]

AT_FDCWD = -100  # Linux: paths count from the current folder
SWAP = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS
UNABLE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}


def exchange(one: Path, other: Path) -> bool:
    """Swap the names of two folders on one file system; False, without a change, if the system cannot.

    Raises OSError for any other reason, such as FileNotFoundError if one of them no longer exists.
    """
    swap = _swap()
    if swap is None:
        return False
    if swap(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNABLE:
        return False
    raise OSError(code, os.strerror(code), str(one), None, str(other))


@cache
def _swap() -> Swap | None:
    """The function of the C library that swaps names; None if it has none."""
    if sys.platform not in ("linux", "darwin"):
        return None
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":
        mac = getattr(library, "renamex_np", None)
        return None if mac is None else lambda one, other: int(mac(one, other, SWAP))
    linux = getattr(library, "renameat2", None)  # of glibc 2.28
    return None if linux is None else lambda one, other: int(linux(AT_FDCWD, one, AT_FDCWD, other, SWAP))
