"""Fixtures of several folders."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def without_gc() -> Iterator[None]:
    """A test in which only reference counts free anything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
