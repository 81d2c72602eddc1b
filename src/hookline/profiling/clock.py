"""Read the time on the host or on a device's stream, and peak memory; and measure what reading the clock costs."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Identity, Sequential

from hookline.model.select import select
from hookline.profiling.timeline import Span, Timeline, with_inside

EMPTY = 64  # modules that do nothing, one after another


class Clock:
    """Reads the time: the host's on the CPU, on any other device an event on its current stream.

    No reading waits for the device; `seconds` waits once and turns the readings into numbers.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on_host = device.type in ("cpu", "meta")
        self.read: Callable[[], Any] = time.perf_counter if self.on_host else self._event

    def _event(self) -> Any:
        event = torch.Event(self.device, enable_timing=True)
        event.record(torch.accelerator.current_stream(self.device))  # the default is the current device's stream
        return event

    def seconds(self, readings: list[Any]) -> list[float]:
        """The readings as seconds, on a device since the first one."""
        if self.on_host or not readings:
            return readings
        torch.accelerator.synchronize(self.device)
        return [readings[0].elapsed_time(reading) / 1e3 for reading in readings]

    def forget_peak(self) -> None:
        """Reset the peak memory of the device."""
        if not self.on_host:
            with suppress(RuntimeError):  # a device that does not track its memory
                torch.accelerator.reset_peak_memory_stats(self.device)

    def peak(self) -> int | None:
        """The peak memory of the device in bytes; None if it does not track it."""
        if self.on_host:
            return None
        with suppress(RuntimeError):
            return torch.accelerator.max_memory_allocated(self.device) or None
        return None


@dataclass(frozen=True, slots=True)
class Off:
    """The seconds that reading the clock adds to a call itself and to the call around it, forward and backward."""

    forward: float = 0.0
    forward_around: float = 0.0
    backward: float = 0.0
    backward_around: float = 0.0

    @property
    def total(self) -> float:
        """The sum, for one call."""
        return self.forward + self.forward_around + self.backward + self.backward_around


def cost_of_reading(*, backward: bool, rounds: int = 9) -> Off:
    """Measure what reading the clock costs, on modules that do nothing.

    The least of a few rounds counts, so that too little is subtracted rather than too much.
    """
    model = Sequential(*(Identity() for _ in range(EMPTY)))
    x = torch.zeros((), requires_grad=backward)
    found = [_once(model, x, backward=backward) for _ in range(rounds)]
    return Off(*(max(0.0, min(column)) for column in zip(*found, strict=True)))


def _once(model: Sequential, x: torch.Tensor, *, backward: bool) -> tuple[float, ...]:
    began = time.perf_counter()
    model(x)
    bare = time.perf_counter() - began
    timeline = Timeline(time.perf_counter, backward=backward)
    with timeline.reading(select(model, "**")):
        output = model(x)
        if backward:
            output.backward()
            x.grad = None
    around, *inside = timeline.spans()
    own = sum(span.forward for span in inside) / EMPTY
    return (
        own,
        (around.forward - bare) / EMPTY,
        sum(span.backward for span in inside) / EMPTY,
        around.backward / EMPTY,
    )


@dataclass(frozen=True, slots=True)
class Times:
    """The seconds of one call in one step, total and self, forward and backward."""

    forward: float
    forward_self: float
    backward: float
    backward_self: float


def times_of(spans: Sequence[Span], off: Off) -> list[Times]:
    """The seconds of each call, minus what reading the clock cost."""
    numbers = {id(span): number for number, span in enumerate(spans)}
    parents = [None if span.parent is None else numbers[id(span.parent)] for span in spans]
    forward = [span.forward - off.forward for span in spans]
    backward = [span.backward - (off.backward if span.backward_at else 0.0) for span in spans]
    for span, parent in zip(spans, parents, strict=True):
        if parent is not None:
            forward[parent] -= off.forward_around
            backward[parent] -= off.backward_around if span.backward_at else 0.0
    own = [(max(0.0, ahead), max(0.0, back)) for ahead, back in zip(forward, backward, strict=True)]
    whole = with_inside(spans, own)
    return [Times(total[0], alone[0], total[1], alone[1]) for total, alone in zip(whole, own, strict=True)]
