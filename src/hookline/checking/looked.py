"""What a check looked at and which rules it ran, for the report of a check that found nothing."""

from collections.abc import Iterable, Iterator

from hookline.checking.evidence import Evidence
from hookline.checking.finding import Rule


def looked(evidence: Evidence, rules: Iterable[Rule]) -> tuple[str, ...]:
    """What a check looked at, which rules it ran, and what it could not judge; one line each."""
    names = [rule.name for rule in rules]
    return (
        f"looked at {', '.join(_seen(evidence))}",
        f"ran {_many(len(names), 'rule')}: {', '.join(names)}",
        *(f"not judged: {what}" for what in _not_judged(evidence)),
    )


def _seen(evidence: Evidence) -> Iterator[str]:
    calls = evidence.run.calls
    yield f"{_many(len(calls), 'call')} of {_many(len({call.path for call in calls}), 'module')}"
    facts = [*(evidence.parameters or {}).values()]
    if facts:
        graded = sum(each.gradients > 0 for each in facts)
        yield f"gradients of {graded} of {_many(len(facts), 'parameter')}"
    elif evidence.backward_ran:
        yield "gradients of outputs"
    if evidence.units:
        yield f"units of {_many(len(evidence.units), 'activation')}"
    if evidence.steps:
        yield _many(evidence.steps, "optimizer step")


def _not_judged(evidence: Evidence) -> Iterator[str]:
    if not evidence.run.calls:
        yield "anything, since no module was called"
    elif evidence.parameters is None:
        yield "parameters, units, modes and optimizer steps, which a recorded run does not hold"
    if evidence.run.calls and not evidence.backward_ran:
        yield "gradients, torch.relu and F.relu6, since no backward pass ran"
    offloaded = sum(facts.elsewhere for facts in (evidence.parameters or {}).values())
    if offloaded:
        yield f"gradients of {_many(offloaded, 'parameter')} that accelerate offloads, since it does not keep them"
    if evidence.parameters is not None and not evidence.steps:
        yield "updates, since no optimizer stepped"


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"
