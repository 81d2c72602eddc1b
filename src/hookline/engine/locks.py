"""Locks that are free in a forked child."""

import os
import threading


def lock() -> "threading.RLock":
    """A reentrant lock that no other thread holds while the process forks: the child, which has none of the other
    threads, would wait for it forever. Forking acquires the newest lock first, so make the inner locks first."""
    made = threading.RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=made.acquire, after_in_parent=made.release, after_in_child=made.release)
    return made
