"""The rule on where the first NaN or Inf of a backward pass came from."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

from hookline.record.record import CallRecord, TensorInfo
from hookline.tools.rules.evidence import Evidence, broken, ended, only_negative, passes, same
from hookline.tools.rules.finding import Finding, rule


@rule(
    "nonfinite-gradient",
    severity="error",
    advice="Its forward is finite, so look at the derivative: of a root or norm at 0, of a division, of a masked "
    "value; or at a loss scale that is too large for its dtype.",
)
def nonfinite_gradient(evidence: Evidence) -> Iterator[Finding]:
    """The module whose backward made the first NaN or Inf, where the forward made none."""
    for calls in passes(evidence.run):
        if any(broken(info) and not only_negative(info) for call in calls for info in call.outputs):
            return  # a consequence of what `nonfinite-output` tells
        bad = [call for call in calls if any(info.grad is not None and broken(info.grad) for info in call.outputs)]
        if bad:
            yield from _first_in_backward(evidence, calls, bad)
            return
    yield from _bad_parameter_gradients(evidence)


def _first_in_backward(evidence: Evidence, calls: list[CallRecord], bad: list[CallRecord]) -> Iterator[Finding]:
    """The module whose backward made it: the one that took what the last of the bad calls gave."""
    outer, last = calls[-1], bad[-1]
    if last is outer:
        if evidence.loss is None or isfinite(evidence.loss):
            message = "the gradient that reaches its output is not finite: what comes after the model makes it"
            yield Finding(outer.path, message, call=outer.index, evidence=_gradient_figures(last))
        return
    takers = [call for call in calls if call.began >= ended(last) and _takes(call, last) and not _is_bad(call)]
    if takers:
        maker = next(call for call in takers if not any(call in other.around() for other in takers))
        message = "its backward makes what is not finite, of a finite gradient"
    else:
        maker = last.parent or last
        message = f"in its own code, after {last.path}, the backward makes what is not finite"
    figures = {**_gradient_figures(last), "seen_at": last.path, "input_min": _minimum(last.outputs)}
    yield Finding(maker.path, message, call=maker.index, evidence=figures)


def _takes(call: CallRecord, earlier: CallRecord) -> bool:
    return any(same(given, info) for given in call.inputs for info in earlier.outputs)


def _is_bad(call: CallRecord) -> bool:
    return any(info.grad is not None and broken(info.grad) for info in call.outputs)


def _bad_parameter_gradients(evidence: Evidence) -> Iterator[Finding]:
    for name, facts in (evidence.parameters or {}).items():
        largest = facts.largest_gradient
        if largest is not None and not isfinite(largest) and facts.bad_pass is None:
            message = f"the gradient of its parameter {_last(name)} is not finite, though those that reach it are"
            yield Finding(facts.path, message, evidence={"parameter": name, "largest": largest})


def _gradient_figures(call: CallRecord) -> dict[str, Any]:
    grad = next(info.grad for info in call.outputs if info.grad is not None and broken(info.grad))
    return {"nan": grad.nan, "inf": grad.inf, "of": grad.count}


def _minimum(infos: list[TensorInfo]) -> float | None:
    return min((info.stats.min for info in infos if info.stats is not None), default=None)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
