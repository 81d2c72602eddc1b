"""Traces for other tools: Chrome trace events for Perfetto, and collapsed stacks for flame graphs."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from hookline.profiling.profiled import Profile
from hookline.profiling.timeline import Span
from hookline.record.record import Run
from hookline.store.file import write_text

FORWARD, BACKWARD = "forward", "backward"


def write_trace(path: str | os.PathLike[str], events: Iterable[dict[str, Any]], name: str) -> None:
    """Write trace events as a JSON file, whole or not at all."""
    head = {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": name}}
    write_text(path, json.dumps({"traceEvents": [head, *events], "displayTimeUnit": "ms"}))


def span_events(spans: Iterable[Span]) -> Iterator[dict[str, Any]]:
    """The spans of a profiled step, with separate tracks for forward and backward."""
    known = [*spans]
    began = min((span.forward_at[0] for span in known if span.forward_at), default=0.0)
    tracks = track_numbers(span.thread for span in known)
    for span in known:
        for phase, at in ((FORWARD, span.forward_at), (BACKWARD, span.backward_at)):
            if at is None:
                continue
            args = {"path": span.path, "call": span.index, "class": span.type}
            if span.recompute:
                args["recompute"] = True
            track = 2 * tracks[span.thread] + (phase == BACKWARD)
            yield event(span.path or span.type, phase, at[0] - began, at[1] - at[0], track, args)


def run_events(run: Run) -> Iterator[dict[str, Any]]:
    """The calls of a run as trace events."""
    tracks = track_numbers(call.thread for call in run.calls)
    for call in run.calls:
        args: dict[str, Any] = {"path": call.path, "call": call.index, "class": call.type}
        args["out"] = [str(info) for info in call.outputs]
        if call.error:
            args["error"] = call.error
        yield event(call.path or call.type, FORWARD, call.began, call.seconds, 2 * tracks[call.thread], args)


def event(name: str, phase: str, began: float, seconds: float, track: int, args: dict[str, Any]) -> dict[str, Any]:
    """One complete event; times in microseconds."""
    at = {"ts": round(began * 1e6, 3), "dur": round(max(0.0, seconds) * 1e6, 3)}
    return {"ph": "X", "name": name, "cat": phase, "pid": 1, "tid": track, **at, "args": args}


def track_numbers(threads: Iterable[int]) -> dict[int, int]:
    """A small number for each thread, in order of appearance."""
    return {thread: number for number, thread in enumerate(dict.fromkeys(threads))}


def write_collapsed(path: str | os.PathLike[str], profile: Profile) -> None:
    """Write a line for each call stack: its names, and the self time of the last in microseconds."""
    found: dict[str, float] = {}
    for cost in profile if profile.repeat else ():
        way = [*reversed([*profile.around(cost)]), cost]
        names = [below.path.removeprefix(f"{above.path}.") for above, below in pairwise(way)]
        stack = ";".join([profile.model, *([way[0].path] if way[0].path else []), *names])
        ahead, back = (0.0, cost.seconds_self) if cost.recompute else (cost.forward_self, cost.backward_self)
        for phase, seconds in ((FORWARD, ahead), (BACKWARD, back)):
            found[f"{phase};{stack}"] = found.get(f"{phase};{stack}", 0.0) + seconds
    rounded = {stack: round(seconds * 1e6) for stack, seconds in found.items() if math.isfinite(seconds)}
    lines = [f"{stack} {microseconds}\n" for stack, microseconds in rounded.items() if microseconds]
    write_text(path, "".join(lines))
