"""Rules on narrow dtypes: updates lost in rounding, and outputs that underflow to 0."""

from collections.abc import Iterator

import torch

from hookline.checking.evidence import Evidence, floating
from hookline.checking.finding import Finding, rule
from hookline.checking.tally import NARROW
from hookline.messages import dtype_name
from hookline.record.record import CallRecord

FEW = 0.1  # of the elements with a gradient
FEWEST = 16  # fewest elements from which zeros everywhere mean something
MAY_GIVE_ZEROS = ("relu", "drop", "mask", "shrink", "threshold", "clamp", "zero")


@rule(
    "lost-updates",
    advice="Keep a float32 copy of the weights for the optimizer (train under torch.autocast with float32 weights), "
    "use an optimizer with stochastic rounding, or a larger learning rate.",
)
def lost_updates(evidence: Evidence) -> Iterator[Finding]:
    """A bfloat16 or float16 weight in which no optimizer step changed more than 10% of the elements with a gradient."""
    for name, facts in (evidence.parameters or {}).items():
        share = facts.moved_share
        if share is None or not facts.moved or not facts.rate or not facts.largest_gradient:
            continue
        if facts.parameter.dtype in NARROW and facts.parameter.dim() > 1 and share < FEW:
            dtype = dtype_name(facts.parameter.dtype)
            message = f"a step changed {share:.1%} of the elements of its {name.rpartition('.')[2]} at most: the other "
            figures = {"parameter": name, "share": share, "steps": facts.steps, "learning_rate": facts.rate}
            yield Finding(facts.path, f"{message}updates are lost in the rounding of {dtype}", evidence=figures)


@rule(
    "underflow",
    advice="Compute it in float32 or bfloat16, or scale it up: the smallest float16 is 6e-8.",
)
def underflow(evidence: Evidence) -> Iterator[Finding]:
    """A module whose float16 output is 0 everywhere, with an input and weights that are not. Gradients are not judged:
    torch.amp.GradScaler is for those."""
    seen: set[str] = set()
    for call in evidence.run:
        if call.path in seen or call.error is not None or _may_give_zeros(call) or not _is_gone(call):
            continue
        inside = any(other.parent is call and _is_gone(other) for other in evidence.run)
        if not inside and _has_weights(evidence, call):
            seen.add(call.path)
            largest = max(info.stats.absmax for info in floating(call.inputs) if info.stats is not None)
            message = f"its output is 0 in all {call.outputs[0].count} places, from inputs up to {largest:.3g}"
            yield Finding(call.path, f"{message}: too small for float16", call=call.index, evidence={"input": largest})


def _is_gone(call: CallRecord) -> bool:
    """Whether all of a call's first output is 0, in float16, though its input is not."""
    out = call.outputs[0] if floating(call.outputs[:1]) else None
    given = [info.stats for info in floating(call.inputs) if info.stats is not None]
    if out is None or out.dtype != torch.float16 or out.stats is None or out.stats.count < FEWEST:
        return False
    return out.stats.zeros == 1.0 and any(each.absmax > 0 for each in given)


def _has_weights(evidence: Evidence, call: CallRecord) -> bool:
    """Whether the weights in a module, where it has any, are not all 0."""
    weights = [facts for facts in evidence.below(call.path).values() if facts.parameter.dim() > 1]
    return not weights or any(facts.norm for facts in weights)


def _may_give_zeros(call: CallRecord) -> bool:
    return any(name in call.type.lower() for name in MAY_GIVE_ZEROS)
