"""Rules on values: what raised, where the first NaN or Inf originated, and what is close to overflow."""

from collections.abc import Iterator
from math import isfinite

import torch

from hookline.checking.evidence import (
    Evidence,
    broken,
    floating,
    is_below,
    only_negative,
    passes,
)
from hookline.checking.finding import Finding, Severity, rule
from hookline.record.record import CallRecord, Run, TensorInfo, infos

UNREDUCED = "Expected to have finished reduction in the prior iteration"  # `unused-in-ddp` reports it
NEAR = {torch.float16: 4, torch.bfloat16: 32, torch.float32: 32, torch.float64: 32}  # of the largest: 1/4 or 1/32


@rule(
    "raised",
    severity="error",
    advice="Read the error. hookline.watch records the inputs of every module up to it.",
)
def raised(evidence: Evidence) -> Iterator[Finding]:
    """The innermost call that raised. An error in the loss or the backward pass is reported at the model."""
    failed = [call for call in evidence.run if call.error is not None and UNREDUCED not in call.error]
    for call in failed:
        if any(other.parent is call and other.error == call.error for other in failed):
            continue
        caught = any(above.error is None for above in call.around())
        yield Finding(
            call.path,
            f"raised {call.error}{', which a module around it caught' if caught else ''}",
            call=call.index,
            evidence={"inputs": [str(info) for info in call.inputs]},
            severity="note" if caught else None,
        )
    error = evidence.error
    if (
        error is not None
        and UNREDUCED not in str(error)
        and f"{type(error).__name__}: {error}" not in {call.error for call in failed}
    ):
        yield Finding("", f"raised outside its forward: {type(error).__name__}: {error}")


@rule(
    "nonfinite-parameter",
    severity="error",
    advice="Find what wrote it: a damaged checkpoint, an initialization that divides by zero, an earlier step.",
)
def nonfinite_parameter(evidence: Evidence) -> Iterator[Finding]:
    """A parameter that held NaN or Inf before the first call, or after an optimizer step."""
    for name, facts in (evidence.parameters or {}).items():
        if facts.nan or facts.inf:
            yield Finding(
                facts.path,
                f"its parameter {_last(name)} held {_counts(facts.nan, facts.inf)} before the first call"
                + (f", {facts.where}" if facts.where else ""),
                evidence={"parameter": name, "nan": facts.nan, "inf": facts.inf},
            )
        elif facts.bad_pass is not None:
            yield Finding(
                facts.path,
                f"its parameter {_last(name)} became NaN or Inf before call {facts.bad_pass} of the model",
                call=facts.bad_pass,
                evidence={"parameter": name, "ratio": facts.ratio},
                advice="Look at the optimizer step before it: its learning rate and its gradient.",
            )


@rule("nonfinite-input", severity="error", advice="Look at the data and its preparation, not at the model.")
def nonfinite_input(evidence: Evidence) -> Iterator[Finding]:
    """NaN or +Inf in the inputs of the model. -Inf alone is taken for a mask."""
    for calls in passes(evidence.run):
        outer = calls[-1]
        for keys, info in infos((outer.args, outer.kwargs)):
            if broken(info) and not only_negative(info):
                name = ".".join(map(str, keys[1:]))
                yield Finding(
                    outer.path,
                    f"its argument {name} holds {_counts(info.nan, info.inf)} among {info.count} elements"
                    + _spots(evidence, outer, name),
                    call=outer.index,
                    evidence={"argument": name, "nan": info.nan, "inf": info.inf},
                )
                return


@rule(
    "nonfinite-output",
    severity="error",
    advice="Its inputs are finite, so look at its own arithmetic: a logarithm or root of 0, a division by 0, a mask "
    "over a whole row, a number too large for its dtype.",
)
def nonfinite_output(evidence: Evidence) -> Iterator[Finding]:
    """The modules that produced the first NaN or Inf of the forward, without those that passed it on."""
    number, calls = _first_broken_pass(evidence.run)
    severity = _severity(evidence, calls)
    for call in _producers(evidence, number, calls):
        number, bad = next((number, info) for number, info in enumerate(call.outputs) if broken(info))
        inside = any(other.parent is call for other in calls)
        yield Finding(
            call.path,
            f"produces {_counts(bad.nan, bad.inf)} among {bad.count} elements"
            + _spots(evidence, call, number)
            + (", in its own code: the outputs of its children are finite" if inside else ""),
            call=call.index,
            evidence={"nan": bad.nan, "inf": bad.inf, "of": bad.count, "input_absmax": _absmax(call.inputs)},
            severity=severity,
        )


@rule(
    "nonfinite-loss",
    severity="error",
    advice="The model's output is finite, so look at the loss. Use a loss that takes logits, or add an epsilon.",
)
def nonfinite_loss(evidence: Evidence) -> Iterator[Finding]:
    """A loss that is NaN or Inf though the output of the model is finite."""
    loss = evidence.loss
    empty = not any(info.stats is not None and info.stats.count for call in evidence.run for info in call.outputs)
    if loss is not None and not isfinite(loss) and not empty and not _first_broken_pass(evidence.run)[1]:
        yield Finding("", f"the loss is {loss}, from a finite output", evidence={"loss": loss})


@rule(
    "near-overflow",
    advice="Compute it in float32 or bfloat16, or scale it down: a normalization before it, a smaller loss scale.",
)
def near_overflow(evidence: Evidence) -> Iterator[Finding]:
    """Values or gradients close to the largest number of their dtype: from 1/4 of it in float16, 1/32 in others."""
    worst: dict[tuple[str, str], Finding] = {}
    for call in evidence.run:
        told = [("output", info) for info in call.outputs]
        told += [("gradient", info.grad) for info in call.outputs if info.grad is not None]
        for what, info in told:
            largest = _largest_unmasked(info)
            if largest and largest > worst.get((call.path, what), NOTHING).evidence["largest"]:
                limit = torch.finfo(info.dtype).max
                message = f"its {what} reaches {largest:.4g}; the largest {info.dtype_name} is {limit:.4g}"
                figures = {"largest": largest, "limit": limit, "dtype": info.dtype_name}
                worst[call.path, what] = Finding(call.path, message, call=call.index, evidence=figures)
    yield from _innermost(worst)


NOTHING = Finding("", "", evidence={"largest": 0.0})


def _largest_unmasked(info: TensorInfo) -> float | None:
    """The largest magnitude if it is close to the limit of the dtype, else None. A value at the very negative limit is
    taken for a mask."""
    stats, dtype = info.stats, info.dtype
    if stats is None or stats.nan or stats.inf or dtype not in NEAR:
        return None
    limit = torch.finfo(dtype).max
    masked = stats.min <= -limit * (1 - 1e-3)
    largest = stats.max if masked else stats.absmax
    return largest if largest >= limit / NEAR[dtype] else None


def _innermost(found: dict[tuple[str, str], Finding]) -> Iterator[Finding]:
    """The findings without those of modules around another one that is found too."""
    for (path, what), finding in found.items():
        if not any(other != path and is_below(other, path) for other, kind in found if kind == what):
            yield finding


def _spots(evidence: Evidence, call: CallRecord, part: int | str) -> str:
    """Where in a tensor of a call its NaN and Inf are, as a text to follow their number."""
    where = (evidence.spots or {}).get((call.path, call.index, part), "")
    return f", {where}" if where else ""


def _first_broken_pass(run: Run) -> tuple[int, list[CallRecord]]:
    """The number and calls of the first outermost call with NaN or Inf in an output; no calls without any."""
    for number, calls in enumerate(passes(run)):
        if any(broken(info) for call in calls for info in call.outputs):
            return number, calls
    return 0, []


def _producers(evidence: Evidence, number: int, calls: list[CallRecord]) -> list[CallRecord]:
    """The calls that produced NaN or Inf, in the order in which they ended.

    Calls with bad parameters are left out: `nonfinite-parameter` reports those.
    """
    made: list[CallRecord] = []
    known = all(info.stats is not None for call in calls for info in floating(call.inputs))
    earlier = False
    for call in calls:
        if not any(broken(info) for info in call.outputs):
            continue
        inside = any(call in other.around() for other in made)
        if not inside and not _passes_on(call, earlier=earlier) and (known or not made):
            made.append(call)
        earlier = True
    return [call for call in made if not _had_bad_parameters(evidence, call.path, number)]


def _passes_on(call: CallRecord, *, earlier: bool) -> bool:
    """Whether a call received NaN or Inf. -Inf alone counts if an earlier call produced one."""
    return any(broken(info) and (earlier or not only_negative(info)) for info in call.inputs)


def _had_bad_parameters(evidence: Evidence, path: str, number: int) -> bool:
    facts = evidence.below(path).values()
    return any(each.bad_pass is not None and each.bad_pass <= number for each in facts)


def _severity(evidence: Evidence, calls: list[CallRecord]) -> Severity:
    """An error where it reaches the output of the model, the loss or a gradient; else a warning, or a note for -Inf
    alone, which masks consist of."""
    bad = [info for call in calls for info in call.outputs if broken(info)]
    if not bad:
        return "note"
    outer = calls[-1]
    reached = outer.error is not None or any(broken(info) and not only_negative(info) for info in outer.outputs)
    lost = evidence.loss is not None and not isfinite(evidence.loss)
    graded = any(info.grad is not None and broken(info.grad) for call in calls for info in call.outputs)
    if reached or lost or graded:
        return "error"
    return "note" if all(map(only_negative, bad)) else "warning"


def _absmax(infos: list[TensorInfo]) -> float | None:
    return max((info.stats.absmax for info in infos if info.stats is not None), default=None)


def _counts(nan: int, inf: int) -> str:
    """How many elements are NaN and how many Inf, as a text."""
    return " and ".join(f"{count} {name}" for count, name in ((nan, "NaN"), (inf, "Inf")) if count)


def _last(name: str) -> str:
    return name.rpartition(".")[2]
