"""Timeline: how far a meter (clock, FLOPs, bytes) advanced during each call, forward and backward."""

import math
from _thread import get_ident
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from hookline.engine.attach import attach
from hookline.engine.call import Call, Origin
from hookline.engine.hook import make_hooks
from hookline.engine.notes import note_backward_failure
from hookline.model.select import Selection
from hookline.nested import Nested

Meter: TypeAlias = Callable[[], Any]
FORWARD, FORWARD_END, BACKWARD, BACKWARD_END, BACKWARD_END_LATE = range(5)


@dataclass(slots=True, eq=False)
class Span(Nested):
    """How far a meter advanced during one call.

    - `path`, `index`, `type`, `recompute`, `thread`: the call, as in a CallRecord;
    - `parent`: the span of the call around it;
    - `forward`, `backward`: during the call itself;
    - `forward_total`, `backward_total`: with the calls inside it;
    - `forward_at`, `backward_at`: the readings at its begin and end, None if it had none.
    """

    path: str
    index: int
    type: str
    parent: "Span | None"
    recompute: bool
    forward: float = 0.0
    backward: float = 0.0
    forward_total: float = 0.0
    backward_total: float = 0.0
    forward_at: tuple[float, float] | None = None
    backward_at: tuple[float, float] | None = None
    thread: int = 0


class Timeline:
    """Reads a meter at the begin and end of each call of the selected modules, forward and backward, and computes how
    far it advanced in each.

    The meter is read last before a module and first after it. A reading need not be a number until `resolve` turns it
    into one, such as an event on a device's stream. With `backward` each call gets backward hooks, so each argument
    that gradients flow to gets an alias (see `hookline.on`).
    """

    def __init__(self, meter: Meter, *, backward: bool, resolve: Callable[[list[Any]], list[float]] = list) -> None:
        self.meter = meter
        self.backward = backward
        self.resolve = resolve
        self.events: list[tuple[Origin, int, int, Any]] = []
        self.calls: dict[Origin, Span] = {}

    @contextmanager
    def reading(self, selection: Selection) -> Iterator[None]:
        """A block in which the meter is read. An error in the backward pass gets a note that names the call whose
        backward was running."""
        backward = {"backward_before": self._begin_backward} if self.backward else {}
        ends = {"backward": self._end_backward} if self.backward else {}
        first = make_hooks(always=self._end, order=-math.inf, compiled="leave out", **ends)
        last = make_hooks(before=self._begin, order=math.inf, compiled="leave out", **backward)
        try:
            with attach(selection, (*first, *last)):
                yield
        except Exception as error:
            call = self._in_backward()
            if call is not None:
                note_backward_failure(error, call)
            raise

    def _in_backward(self) -> Call | None:
        """The innermost call whose backward is running; None if there is none."""
        ended = {origin for origin, kind, _, _ in self.events if kind == BACKWARD_END}
        stack, origins = Stack(), {id(span): origin for origin, span in self.calls.items()}
        for origin, kind, _, _ in self.events:
            stack.step(self.calls[origin], kind, 0.0, late=origin not in ended)
        span, in_backward, _ = stack.open[-1] if stack.open else (None, False, False)
        return origins[id(span)].call() if in_backward else None

    def _begin(self, call: Call) -> None:
        origin = call.origin()
        parent = origin.nearest(self.calls)
        above = None if parent is None else self.calls[parent]
        kind, thread = type(call.module).__name__, get_ident()
        self.calls[origin] = Span(call.path, call.index, kind, above, call.recompute, thread=thread)
        self.events.append((origin, FORWARD, thread, self.meter()))

    def _end(self, call: Call) -> None:
        now = self.meter()
        self.events.append((call.origin(), FORWARD_END, get_ident(), now))

    def _begin_backward(self, call: Call) -> None:
        self.events.append((call.origin(), BACKWARD, get_ident(), self.meter()))

    def _end_backward(self, call: Call) -> None:
        now = self.meter()
        arrived = any(gradient is not None for gradient in (*call.grad_input, *call.grad_kwargs.values()))
        self.events.append((call.origin(), BACKWARD_END if arrived else BACKWARD_END_LATE, get_ident(), now))

    def spans(self) -> list[Span]:
        """Every call in order, with how far the meter advanced in it."""
        readings = self.resolve([reading for *_, reading in self.events])
        stacks: dict[int, Stack] = {}
        late = {origin for origin, kind, _, _ in self.events if kind == BACKWARD_END_LATE}
        for (origin, kind, thread, _), reading in zip(self.events, readings, strict=True):
            span = self.calls.get(origin)
            if span is not None:
                stacks.setdefault(thread, Stack()).step(span, kind, reading, late=origin in late)
        found = [*self.calls.values()]
        _place_repeated(found)
        own = [(span.forward, span.backward) for span in found]
        for span, (forward, backward) in zip(found, with_inside(found, own), strict=True):
            span.forward_total, span.backward_total = forward, backward
        return found


def _place_repeated(spans: list[Span]) -> None:
    """Give a recomputed call the parent of the original call."""
    first = {span.path: span for span in reversed(spans) if not span.recompute}
    for span in spans:
        if span.recompute and span.parent is None and span.path in first:
            span.parent = first[span.path].parent


def with_inside(spans: Sequence[Span], own: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The totals of calls, forward and backward: their own figures and those of the calls inside them.

    A recomputed call counts as backward in the call around it.
    """
    numbers = {id(span): number for number, span in enumerate(spans)}
    forward, backward = ([*column] for column in zip(*own, strict=True)) if own else ([], [])
    for number in sorted(range(len(spans)), key=lambda number: (spans[number].recompute, number), reverse=True):
        span = spans[number]
        if span.parent is None:
            continue
        around = numbers[id(span.parent)]
        if span.recompute and not span.parent.recompute:
            backward[around] += forward[number] + backward[number]
        else:
            forward[around] += forward[number]
            backward[around] += backward[number]
    return [*zip(forward, backward, strict=True)]


class Stack:
    """The running calls on one thread, the innermost last, and the last reading there."""

    __slots__ = ("last", "open")

    def __init__(self) -> None:
        self.last = 0.0
        self.open: list[tuple[Span, bool, bool]] = []  # the call, whether in its backward, whether its end comes late

    def step(self, span: Span, kind: int, reading: float, *, late: bool) -> None:
        """Add the advance since the last event to the innermost call; then open or close a call."""
        if self.open:
            inner, in_backward, _ = self.open[-1]
            if in_backward:
                inner.backward += reading - self.last
            else:
                inner.forward += reading - self.last
        self.last = reading

        in_backward = kind in (BACKWARD, BACKWARD_END, BACKWARD_END_LATE)
        if kind in (FORWARD, BACKWARD):
            self._close_what_is_over(span)
            self.open.append((span, in_backward, late))
            self._note(span, in_backward, reading)
        else:
            self.open = [entry for entry in self.open if entry[:2] != (span, in_backward)]
            self._note(span, in_backward, reading)

    def _close_what_is_over(self, span: Span) -> None:
        """Close calls whose end is not seen at once, since none of their arguments gets a gradient: such a call is over
        when one begins that is not inside it."""
        around = {id(above) for above in span.around()}
        while self.open and self.open[-1][2] and id(self.open[-1][0]) not in around:
            self.open.pop()

    def _note(self, span: Span, in_backward: bool, reading: float) -> None:
        name = "backward_at" if in_backward else "forward_at"
        began = getattr(span, name)
        setattr(span, name, (reading, reading) if began is None else (began[0], reading))
