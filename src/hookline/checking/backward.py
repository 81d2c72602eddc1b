"""The rule that finds where the first NaN or Inf of a backward pass originated."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

from hookline.checking.evidence import Evidence, Flow, Place, broken, ended, only_negative, passes, same
from hookline.checking.finding import Finding, rule
from hookline.record.record import CallRecord, TensorInfo

SEVERAL = "Watch each of them separately. The forward is finite, so look for a root, a norm or a division at 0."
# Classes whose backward multiplies the gradient by numbers of the forward, 0 or 1: finite as long as those are.
HARMLESS = (
    "Linear",
    "Conv",
    "Identity",
    "ReLU",
    "LeakyReLU",
    "Flatten",
    "Unflatten",
    "MaxPool",
    "AvgPool",
    "Embedding",
)


@rule(
    "nonfinite-gradient",
    severity="error",
    advice="Its forward is finite, so look at the derivative: of a root or norm at 0, of a division, of a masked "
    "value. A loss scale that is too large for the dtype does the same.",
)
def nonfinite_gradient(evidence: Evidence) -> Iterator[Finding]:
    """The module whose backward produced the first NaN or Inf, where the forward was finite."""
    for number, calls in enumerate(passes(evidence.run)):
        if any(broken(info) and not only_negative(info) for call in calls for info in call.outputs):
            return  # a consequence of what `nonfinite-output` reports
        bad = [call for call in calls if any(info.grad is not None and broken(info.grad) for info in call.outputs)]
        if bad:
            yield from _first_in_backward(evidence, calls, bad)
            return
        found = [*_bad_parameter_gradients(evidence, number)]
        if found:
            yield from found
            return


def _first_in_backward(evidence: Evidence, calls: list[CallRecord], bad: list[CallRecord]) -> Iterator[Finding]:
    """Where it originated: in what received the output of the last of the bad calls, in the order of the forward."""
    outer, last = calls[-1], _maker(bad)
    info = next(info for info in last.outputs if info.grad is not None and broken(info.grad))
    leaves = last is outer or any(_is_same_gradient(own, info) for own in outer.outputs)
    if leaves and (evidence.loss is not None and not isfinite(evidence.loss)):
        return  # `nonfinite-loss` reports it

    found = {} if last is outer else _candidates(evidence, calls, last)
    if leaves:
        found[outer.path, outer.index, "after"] = f"code after {_name(outer.path)}"
    elif not found:
        around = last.parent or last
        found[around.path, around.index, "code"] = f"the code of {_name(around.path)}"
    figures = {**_gradient_figures(last), "seen_at": last.path, "input_min": _minimum(last.outputs)}
    if len(found) > 1:
        names = [*found.values()]
        message = f"the gradient of its output is not finite; it comes from one of {len(names)}: {', '.join(names)}"
        yield Finding(last.path, message, call=last.index, evidence={**figures, "candidates": names}, advice=SEVERAL)
        return
    (path, index, kind), _ = found.popitem()
    message = {
        "after": "the gradient that reaches its output is not finite: it comes from code after the model",
        "backward": "its backward produces NaN or Inf from a finite gradient",
        "code": f"the backward of its own code, after {last.path}, produces NaN or Inf",
    }[kind]
    yield Finding(path, message, call=index, evidence=figures)


def _maker(bad: list[CallRecord]) -> CallRecord:
    """The last of the bad calls, or the innermost call that computed what it returned."""
    last = bad[-1]
    info = next(info for info in last.outputs if info.grad is not None and broken(info.grad))
    made = (call for call in bad if any(_is_same_gradient(own, info) for own in call.outputs))
    return next(made, last)


def _is_same_gradient(one: TensorInfo, other: TensorInfo) -> bool:
    """Whether two records are of one tensor, which a container returned as its child computed it."""
    if one.grad is None or other.grad is None:
        return False
    return one.grad is other.grad or (same(one, other) and one.grad.stats == other.grad.stats)


def _candidates(evidence: Evidence, calls: list[CallRecord], last: CallRecord) -> dict[tuple[str, int, str], str]:
    """Where it may have originated: (path, index, "backward" or "code") and how messages name it."""
    if evidence.flows is None:
        return _candidates_by_figures(evidence, calls, last)
    by_place = {(call.path, call.index): call for call in calls}
    ways = [flow for flow in evidence.flows if flow.place in by_place and _comes_from(flow, last)]
    ways = [flow for flow in ways if not _is_seen_closer(flow, ways, by_place)]
    ways = [flow for flow in ways if not flow.hooked or (flow.gradient is not None and not isfinite(flow.gradient))]
    inputs = [flow for flow in ways if flow.kind == "input"]
    found: dict[tuple[str, int, str], str] = {}
    for flow in ways:
        call = by_place[flow.place]
        if flow.kind == "input" or not _has_children(call, calls):
            if _may_make(call):
                found[*flow.place, "backward"] = f"the backward of {_name(call.path)}"
        elif not any(way.hooked and call in by_place[way.place].around() for way in inputs):
            found[*flow.place, "code"] = f"the code of {_name(call.path)} ({', '.join(flow.operations)})"
    return found


def _comes_from(flow: Flow, call: CallRecord) -> bool:
    return any(source[:2] == (call.path, call.index) for source in flow.sources)


def _has_children(call: CallRecord, calls: list[CallRecord]) -> bool:
    return any(other.parent is call for other in calls)


def _is_seen_closer(flow: Flow, ways: list[Flow], by_place: dict[Place, CallRecord]) -> bool:
    """Whether an operation in the call, or a call inside it, that takes the same input is known as well."""
    if flow.kind == "operation" or not flow.direct:
        return False
    call = by_place[flow.place]
    return any(
        way is not flow and (way.place == flow.place or call in by_place[way.place].around())
        for way in ways
        if way.kind == "operation" or way.place != flow.place
    )


def _may_make(call: CallRecord) -> bool:
    """Whether a call received a finite gradient and its backward may turn it into NaN or Inf."""
    graded = [info.grad for info in call.outputs if info.grad is not None]
    return bool(graded) and not any(map(broken, graded)) and call.type not in HARMLESS


def _candidates_by_figures(
    evidence: Evidence, calls: list[CallRecord], last: CallRecord
) -> dict[tuple[str, int, str], str]:
    """The same where only statistics are known: the calls that received a tensor with the statistics of the output."""
    takers = [call for call in calls if call.began >= ended(last) and _takes(call, last) and not _is_bad(call)]
    innermost = [call for call in takers if not any(call in other.around() for other in takers)]
    makers = [call for call in innermost if _may_make(call)] or innermost
    if makers:
        return {(call.path, call.index, "backward"): f"the backward of {_name(call.path)}" for call in makers}
    if evidence.run.settings.get("inputs") != "stats":
        return {}
    around = last.parent or last
    later = [call for call in calls if call.parent is last.parent and call.began >= ended(last) and call is not last]
    found = {(around.path, around.index, "code"): f"the code of {_name(around.path)}"}
    for call in later:
        if _may_make(call):
            found[call.path, call.index, "backward"] = f"the backward of {_name(call.path)}"
    return found


def _takes(call: CallRecord, earlier: CallRecord) -> bool:
    return any(same(given, info) for given in call.inputs for info in earlier.outputs)


def _is_bad(call: CallRecord) -> bool:
    return any(info.grad is not None and broken(info.grad) for info in call.outputs)


def _name(path: str) -> str:
    return path or "the model"


def _bad_parameter_gradients(evidence: Evidence, number: int) -> Iterator[Finding]:
    """Parameters whose own gradient was the first with NaN or Inf, after the outermost call of that number."""
    for name, facts in (evidence.parameters or {}).items():
        if facts.bad_gradient == number and (facts.bad_pass is None or facts.bad_pass > number):
            message = f"the gradient of its parameter {_last(name)} is not finite, though those of all outputs are"
            figures = {"parameter": name, "largest": facts.largest_gradient, "pass": number}
            yield Finding(facts.path, message, evidence=figures)


def _gradient_figures(call: CallRecord) -> dict[str, Any]:
    grad = next(info.grad for info in call.outputs if info.grad is not None and broken(info.grad))
    return {"nan": grad.nan, "inf": grad.inf, "of": grad.count}


def _minimum(infos: list[TensorInfo]) -> float | None:
    return min((info.stats.min for info in infos if info.stats is not None), default=None)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
