"""Rules on activations: units that are never active or saturate, and outputs that do not depend on the input."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

from hookline.checking.evidence import (
    Evidence,
    ParameterFacts,
    UnitFacts,
    by_path,
    by_place,
    floating,
    is_below,
    is_models_own,
    passes,
)
from hookline.checking.finding import Finding, Severity, rule
from hookline.record.record import CallRecord

ENOUGH = 64  # fewest values, of a unit or of all units together, from which zeros mean something
MOST_DEAD = 0.5
MOST_FLAT = 0.95
FEWEST_ROWS = 8


@rule(
    "dead-units",
    advice="No gradient reaches them, so they stay dead. Lower the learning rate, check the bias and initialization of "
    "the layer before them, or use a leaky activation.",
)
def dead_units(evidence: Evidence) -> Iterator[Finding]:
    """Rectifier units that were 0 in every call from one place. torch.relu and F.relu6 are covered where gradients are
    on and a module receives or returns their result. A warning from half of the units on, or for all of them in a saved
    run."""
    if evidence.units is None:
        yield from _silent_banks(evidence)
        return
    for facts in evidence.units:
        if facts.dead is None:
            continue
        values = facts.observations * facts.units
        all_dead = facts.dead == facts.units and values >= ENOUGH
        if facts.dead and (all_dead or facts.observations >= ENOUGH):
            share = facts.dead / facts.units
            message = f"{facts.dead} of {facts.units} units were never active in {facts.observations} values each"
            yield Finding(
                facts.path,
                message + _there(facts),
                call=facts.call,
                evidence={"dead": facts.dead, "units": facts.units, "observations": facts.observations},
                severity="warning" if share >= MOST_DEAD else "note",
            )


def _there(facts: UnitFacts) -> str:
    return f", {facts.where}" if facts.where else ""


def _silent_banks(evidence: Evidence) -> Iterator[Finding]:
    for (path, *_), calls in by_place(evidence.run, lambda call: "relu" in call.type.lower()).items():
        stats = [info.stats for call in calls for info in call.outputs if info.stats is not None]
        count = sum(each.count for each in stats)
        call = None if len(calls) == len(evidence.run.calls_of(path)) else calls[0].index
        if count >= ENOUGH and all(each.zeros == 1.0 for each in stats):
            yield Finding(path, f"all {count} values of its output are 0", call=call, evidence={"values": count})


@rule(
    "saturated",
    advice="Its gradient is close to 0 there. Scale its inputs down (initialization, normalization, learning rate).",
)
def saturated(evidence: Evidence) -> Iterator[Finding]:
    """A sigmoid or tanh of which 95% of the values lie within 0.01 of the ends of its range."""
    for facts in evidence.units or ():
        share = facts.saturated
        if share is not None and share >= MOST_FLAT and facts.observations >= ENOUGH:
            message = f"{share:.0%} of its values lie within 0.01 of the ends of its range"
            yield _flat(evidence, facts, message, {"share": share, "values": facts.observations})


@rule(
    "collapsed-softmax",
    advice="It passes almost no gradient back. Scale the scores down (by the root of the width, or a temperature), or "
    "find out why they are so large.",
)
def collapsed_softmax(evidence: Evidence) -> Iterator[Finding]:
    """A softmax with 95% of its rows above 0.999 in one place."""
    for facts in evidence.units or ():
        share = facts.collapsed
        if share is not None and share >= MOST_FLAT and facts.observations >= FEWEST_ROWS:
            message = f"{share:.0%} of its {facts.observations} rows are above 0.999 in one place"
            yield _flat(evidence, facts, message, {"share": share, "rows": facts.observations})


def _flat(evidence: Evidence, facts: UnitFacts, message: str, figures: dict[str, Any]) -> Finding:
    """The finding about units that pass almost no gradient back."""
    severity = _unless_confident(evidence, facts.path)
    return Finding(facts.path, message + _there(facts), call=facts.call, evidence=figures, severity=severity)


def _unless_confident(evidence: Evidence, path: str) -> Severity:
    """ "note" where a trained model may be that certain: in eval mode, or in its own output."""
    training = any(call.training for call in evidence.run if call.path == path)
    return "warning" if training and not is_models_own(evidence.run, path) else "note"


@rule(
    "constant-output",
    advice="Its output does not depend on its input. Look for a softmax over one class or the wrong dimension, weights "
    "of 0, or a clamp.",
)
def constant_output(evidence: Evidence) -> Iterator[Finding]:
    """A module that returned one number everywhere from inputs that vary, or a model with the same output for every
    sample of a batch. A note where that number is 0, or where the weight of the layer, or of the model's last layer,
    starts at 0."""
    flat = {path: calls for path, calls in by_path(evidence.run, _may_vary).items() if all(map(_is_flat, calls))}
    for path, calls in flat.items():
        if any(other != path and is_below(other, path) for other in flat):
            continue  # it returns the output of a module inside it
        value = calls[0].outputs[0].stats
        assert value is not None
        count = sum(call.outputs[0].stats.count for call in calls if call.outputs[0].stats is not None)
        yield Finding(
            path,
            f"its output is {value.min:g} in all {count} places",
            evidence={"value": value.min, "count": count},
            severity="note" if value.min == 0 or _starts_at_zero(evidence, path) else None,
        )
    if evidence.same_samples and not flat:
        message = "its output is the same for every sample of a batch, though the samples differ"
        yield Finding("", message, severity="note" if _starts_at_zero(evidence, _last_weighted(evidence)) else None)


def _starts_at_zero(evidence: Evidence, path: str | None) -> bool:
    """Whether a module has a weight, and all its weights were 0 before the first call."""
    weights = [facts for facts in (evidence.parameters or {}).values() if facts.path == path and _is_weight(facts)]
    return bool(weights) and all(facts.norm == 0 for facts in weights)


def _last_weighted(evidence: Evidence) -> str | None:
    """The path of the last module with its own weight that the model called: its head."""
    holders = {facts.path for facts in (evidence.parameters or {}).values() if _is_weight(facts)}
    first = next((calls for calls in passes(evidence.run) if calls[-1].path == ""), [])
    called = [call for call in first if call.path in holders]
    return max(called, key=lambda call: call.number).path if called else None


def _is_weight(facts: ParameterFacts) -> bool:
    return facts.parameter.dim() > 1


def _may_vary(call: CallRecord) -> bool:
    """Whether to judge a call. Dropout and rectifiers have their own rules."""
    name = call.type.lower()
    return "drop" not in name and "relu" not in name


def _is_flat(call: CallRecord) -> bool:
    given = [info.stats for info in floating(call.inputs) if info.stats is not None]
    out = call.outputs[0].stats if floating(call.outputs[:1]) else None
    varied = any(each.min < each.max for each in given)
    return varied and out is not None and out.count >= 4 and out.min == out.max and isfinite(out.min)
