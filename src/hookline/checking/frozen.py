"""Rules on frozen and unused parts: batch norms that change in a frozen trunk, and parameters unused under DDP."""

import re
from collections.abc import Iterator

from hookline.checking.evidence import Evidence, ParameterFacts
from hookline.checking.finding import Finding, Severity, rule
from hookline.checking.values import UNREDUCED
from hookline.torch_private import BatchNorm

INDICES = re.compile(r"Parameter indices which did not receive grad for rank \d+: (?P<numbers>[\d ]+)")
MOST_NAMED = 5


@rule(
    "frozen-norm-updates",
    advice="Freezing parameters does not freeze running statistics. Put the frozen part in eval mode, trunk.eval(), "
    "after each model.train().",
)
def frozen_norm_updates(evidence: Evidence) -> Iterator[Finding]:
    """Batch norms whose parameters, or those around them, are frozen, and whose running statistics still change in
    train mode. A note where no optimizer stepped. Weights that change without an optimizer, such as a moving average,
    do not count as frozen."""
    if not any(facts.gradients for facts in (evidence.parameters or {}).values()):
        return
    found: list[str] = []
    for path, module in (evidence.modules or {}).items():
        keeps = isinstance(module, BatchNorm) and module.track_running_stats and module.running_mean is not None
        updated = keeps and any(call.training for call in evidence.run if call.path == path)
        if updated and _is_frozen(evidence, path):
            found.append(path)
    if found:
        more = f", as do those of {len(found) - 1} more" if len(found) > 1 else ""
        message = f"its parameters are frozen, and its running statistics change with each batch{more}"
        if not evidence.below(found[0]):
            message = f"it is in a frozen part, and its running statistics change with each batch{more}"
        severity: Severity = "warning" if evidence.steps else "note"
        yield Finding(found[0], message, evidence={"paths": found[:MOST_NAMED]}, severity=severity)


def _is_frozen(evidence: Evidence, path: str) -> bool:
    own = evidence.below(path)
    around = evidence.below(path.rpartition(".")[0]) if path.rpartition(".")[0] else own
    return bool(own or around) and all(map(_rests, own.values())) and all(map(_rests, around.values()))


def _rests(facts: ParameterFacts) -> bool:
    """Whether a parameter requires no gradient, got none, and did not change."""
    return not facts.parameter.requires_grad and not facts.gradients and facts.norm == facts.norm_now


@rule(
    "unused-in-ddp",
    severity="error",
    advice="Use them in the loss, remove them from the model, freeze them with requires_grad_(False) before wrapping "
    "it, or wrap it with find_unused_parameters=True.",
)
def unused_in_ddp(evidence: Evidence) -> Iterator[Finding]:
    """The modules whose parameters got no gradient, which made DistributedDataParallel raise "Expected to have finished
    reduction in the prior iteration"."""
    errors = [str(evidence.error or ""), *(call.error or "" for call in evidence.run)]
    said = next((each for each in errors if UNREDUCED in each), None)
    if said is None:
        return
    missing = _told(evidence, said) or {
        name: facts
        for name, facts in (evidence.parameters or {}).items()
        if facts.parameter.requires_grad and not facts.gradients
    }
    paths = [*dict.fromkeys(facts.path for facts in missing.values())]
    if paths:
        shown = ", ".join(path or "the model" for path in paths[:MOST_NAMED]) + (
            ", ..." if len(paths) > MOST_NAMED else ""
        )
        message = f"DistributedDataParallel waits for gradients that did not arrive: no gradient for {shown}"
        yield Finding(paths[0], message, evidence={"paths": paths, "parameters": [*missing][:MOST_NAMED]})


def _told(evidence: Evidence, said: str) -> dict[str, ParameterFacts]:
    """The parameters that the error lists, by their index among those that require a gradient."""
    found = INDICES.search(said)
    asking = [(name, each) for name, each in (evidence.parameters or {}).items() if each.parameter.requires_grad]
    numbers = [int(number) for number in found["numbers"].split()] if found else []
    return dict(asking[number] for number in numbers) if all(number < len(asking) for number in numbers) else {}
