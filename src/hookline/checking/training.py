"""Rules on training steps: weights that do not change, or change too much, and tensors changed after they were used."""

import re
from collections.abc import Iterator
from math import isfinite

from hookline.checking.evidence import Evidence, ParameterFacts, Suspect
from hookline.checking.finding import Finding, Severity, rule

WHOLE = 1.0
SEVERAL = 3
MOSTLY = 0.75
NOTHING = 1e-9  # of the highest learning rate
CALL_BACKWARD = (
    "Call backward() on a loss computed from the model's output, without detach(), item() or torch.tensor() in between."
)
CALL_STEP = "Call optimizer.step() after backward(). If only the gradients are needed, put the model in eval mode."
IN_PLACE = "modified by an inplace operation"
TOLD = re.compile(r"Tensor \[(?P<shape>[\d, ]*)\].* is at version (?P<now>\d+); expected version (?P<version>\d+)")


@rule(
    "large-update",
    advice="Lower the learning rate, warm it up, or clip the gradient. A usual step changes 0.001 of a weight.",
)
def large_update(evidence: Evidence) -> Iterator[Finding]:
    """An optimizer step that changed a weight by as much as the weight itself. Vectors (biases, norms) and weights that
    start at or close to 0 are left out."""
    for name, facts in (evidence.parameters or {}).items():
        if facts.ratio is not None and facts.parameter.dim() > 1 and facts.ratio >= WHOLE:
            message = f"a step changed its {_last(name)} by {facts.ratio:.3g} of its own norm"
            figures = {"parameter": name, "ratio": facts.ratio, "learning_rate": facts.rate}
            yield Finding(facts.path, message, evidence=figures)


@rule(
    "unchanged-weight",
    advice="Pass the optimizer the parameters() of this model, after it was moved or wrapped. Check the learning rate "
    "and its schedule. Keep weights in float32 where steps are small.",
)
def unchanged_weight(evidence: Evidence) -> Iterator[Finding]:
    """A parameter with a gradient that no optimizer step changed, optimizer steps without gradients, or gradients
    without an optimizer step; a note where a step may still follow."""
    if not evidence.steps and not evidence.other_steps:
        yield from _never_stepped(evidence)
        return
    if _stepped_on_nothing(evidence):
        message = f"an optimizer stepped {evidence.steps} times, and no gradient came from the model's output"
        yield Finding("", message, evidence={"steps": evidence.steps}, advice=CALL_BACKWARD)
        return
    if not evidence.steps and evidence.backward_ran:
        message = "has gradients, but the optimizer that stepped holds none of its parameters"
        yield Finding("", message, evidence={"steps": evidence.other_steps})
        return
    told: set[tuple[str, str]] = set()
    for name, facts in (evidence.parameters or {}).items():
        if not facts.largest_gradient or facts.moved:
            continue
        message, severity = _why_unmoved(facts)
        if (facts.path, message) not in told:
            told.add((facts.path, message))
            figures = {"parameter": name, "steps": facts.steps, "learning_rate": facts.rate}
            yield Finding(facts.path, f"its {_last(name)} {message}", evidence=figures, severity=severity)


def _stepped_on_nothing(evidence: Evidence) -> bool:
    """Whether an optimizer stepped on parameters of the model, which was called with gradients on, and yet no gradient
    arrived and nothing changed."""
    facts = (evidence.parameters or {}).values()
    if not evidence.steps or evidence.ended_early or evidence.backward_ran or any(each.moved for each in facts):
        return False
    return any(info.requires_grad for call in evidence.run if call.parent is None for info in call.outputs)


def _never_stepped(evidence: Evidence) -> Iterator[Finding]:
    """Gradients that arrived several times in train mode while no parameter changed."""
    asking = [facts for facts in (evidence.parameters or {}).values() if facts.parameter.requires_grad]
    count = max((facts.gradients for facts in asking), default=0)
    thrown_away = max((facts.renewed for facts in asking), default=0)
    training = all(use.training for use in evidence.uses or () if use.graded)
    if count < SEVERAL or not training or evidence.ended_early:
        return
    if all(facts.norm == facts.norm_now and isfinite(facts.largest_gradient or 0.0) for facts in asking):
        message = f"gradients arrived {count} times, and no optimizer stepped"
        severity: Severity = "warning" if thrown_away >= SEVERAL - 1 else "note"
        yield Finding("", message, evidence={"gradients": count}, severity=severity, advice=CALL_STEP)


def _why_unmoved(facts: ParameterFacts) -> tuple[str, Severity]:
    """Why a parameter did not change, and how bad that is.

    A note for one step at a learning rate of 0, which is how a warm-up begins, and for a vector whose updates are lost,
    such as a bias before a normalization.
    """
    if not facts.steps:
        return "has a gradient, but is not in an optimizer that stepped", "warning"
    if not facts.rate:
        return "did not change: the learning rate is 0", "warning" if facts.steps > 1 else "note"
    severity: Severity = "warning" if facts.parameter.dim() > 1 else "note"
    return f"did not change in {facts.steps} steps: the updates are lost in rounding, or are 0", severity


@rule(
    "no-zero-grad",
    advice="Call optimizer.zero_grad() once for each step, before backward() or after hook().",
)
def no_zero_grad(evidence: Evidence) -> Iterator[Finding]:
    """Three optimizer steps or more in a row on gradients that still contain those of the steps before."""
    facts = evidence.parameters or {}
    found = {name: each for name, each in facts.items() if each.carried >= max(SEVERAL - 1, MOSTLY * (each.steps - 1))}
    if not found:
        return
    count = max(each.carried for each in found.values()) + 1
    graded = [name for name, each in facts.items() if each.steps and each.largest_gradient]
    every = len(found) == len(graded)
    path = "" if every else next(iter(found.values())).path
    whose = "all gradients" if every else f"the gradients of {len(found)} of {len(graded)} parameters"
    message = f"{whose} add up over {count} optimizer steps: zero_grad() was not called in between"
    yield Finding(path, message, evidence={"steps": count, "parameters": [*found][:5]})


@rule(
    "learning-rate-ended",
    advice="Check the number of steps of the schedule: it counts calls of scheduler.step(), per batch or per epoch.",
)
def learning_rate_ended(evidence: Evidence) -> Iterator[Finding]:
    """A learning rate that was above 0 and is 0 from some step to the end. A warning for several such steps of all
    parameters. A note for one step, such as the last of a schedule, and where other parameters still learn."""
    ended: dict[tuple[int, int], list[ParameterFacts]] = {}
    stepped = [each for each in (evidence.parameters or {}).values() if each.rates]
    for each in stepped:
        idle = next((n for n, rate in enumerate(reversed(each.rates)) if rate > NOTHING * max(each.rates)), 0)
        if idle and max(each.rates) > 0:
            ended.setdefault((idle, len(each.rates)), []).append(each)
    for (idle, steps), found in ended.items():
        every = len(found) == len(stepped)
        severity: Severity = "warning" if every and idle >= SEVERAL - 1 else "note"
        message = f"the learning rate reached 0: the last {idle} of {steps} steps changed nothing"
        message += "" if every else f" in {len(found)} of {len(stepped)} parameters"
        figures = {"idle": idle, "steps": steps, "from": max(found[0].rates)}
        yield Finding("" if every else found[0].path, message, evidence=figures, severity=severity)


@rule(
    "changed-in-place",
    severity="error",
    advice="Write `x = x + y` instead of `x += y` there, or use inplace=False. Call optimizer.step() after backward().",
)
def changed_in_place(evidence: Evidence) -> Iterator[Finding]:
    """The tensor that was changed in place between its use and the backward pass, which raised because of it."""
    raised = str(evidence.error) if evidence.error is not None and IN_PLACE in str(evidence.error) else ""
    for suspect in evidence.suspects or ():
        if raised and _is_told_of(suspect, raised):
            figures = {"shape": list(suspect.shape), "version": suspect.version, "now": suspect.now}
            message = f"{suspect.name} was changed in place after it was used, and its backward needs the old value"
            yield Finding(suspect.path, message, call=suspect.call, evidence=figures)
            return


def _is_told_of(suspect: Suspect, message: str) -> bool:
    """Whether PyTorch's error names a tensor of that shape, perhaps transposed, with these version numbers."""
    told = TOLD.search(message)
    if told is None:
        return False
    shape = [int(size) for size in told["shape"].split(", ") if size]
    return sorted(shape) == sorted(suspect.shape) and (int(told["now"]), int(told["version"])) == (
        suspect.now,
        suspect.version,
    )


def _last(name: str) -> str:
    return name.rpartition(".")[2]
