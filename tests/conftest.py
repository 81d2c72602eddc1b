"""Fixtures of several folders."""

import gc
from collections.abc import Iterator

import pytest
import torch
import toys

from hookline.engine.traced import graphs


@pytest.fixture(autouse=True)
def _no_graphs_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Graphs with our hooks in them end with the test: from the first on, hooked modules tell their real class. A test
    that makes one has the mark for it, so that `make test-fast` leaves it out."""
    yield
    if graphs.made:
        torch._dynamo.reset()
        graphs.made = False
        assert request.node.get_closest_marker("graph"), "mark this test with @pytest.mark.graph: it makes a graph"


@pytest.fixture
def without_gc() -> Iterator[None]:
    """A test in which only reference counts free anything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> toys.Simulated:
    """Time that only sleeping takes, in profiles and in the modules of `toys`."""
    time = toys.Simulated()
    monkeypatch.setattr("hookline.profiling.clock.time", time)
    monkeypatch.setattr(toys, "time", time)
    return time
