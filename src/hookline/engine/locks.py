"""Locks that a forked child finds free."""

import os
import threading


def lock() -> "threading.RLock":
    """A reentrant lock that no thread holds while the process forks, so that the child, which has none of the other
    threads, does not wait for one of them. Forking takes the newest lock first: make the inner ones first."""
    made = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=made.acquire, after_in_parent=made.release, after_in_child=made.release)
    return made
