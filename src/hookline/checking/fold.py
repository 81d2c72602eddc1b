"""Fold findings: those that follow from the first NaN or Inf are listed under its finding."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeAlias

from hookline.checking.evidence import Evidence, passes
from hookline.checking.finding import Finding
from hookline.record.record import CallRecord

When: TypeAlias = tuple[int, int]  # the outermost call, and the stage of the training step
STAGES = {  # in the order of a training step
    "nonfinite-parameter": 0,
    "nonfinite-input": 1,
    "nonfinite-output": 2,
    "nonfinite-loss": 3,
    "nonfinite-gradient": 4,
}


def fold(found: Iterable[Finding], evidence: Evidence) -> list[Finding]:
    """Move findings about a later NaN or Inf under the finding about the first one.

    Only errors count as the first: a NaN that is replaced, or a mask, has no consequences. Data that is not finite is
    never a consequence. Findings of the same moment stay, except for parameters that one optimizer step broke together.
    """
    findings = [*found]
    numbers = {id(call): number for number, calls in enumerate(passes(evidence.run)) for call in calls}
    by_call = {(call.path, call.index): call for call in evidence.run.calls}
    times = {id(each): _when(each, numbers, by_call) for each in findings if each.rule in STAGES}
    errors = [each for each in findings if id(each) in times and each.severity == "error"]
    if not errors:
        return findings
    first = min(errors, key=lambda each: times[id(each)])
    later = [each for each in errors if _follows(each, first, times[id(each)], times[id(first)], evidence)]
    gone = {id(each) for each in later}
    kept = [each for each in findings if id(each) not in gone]
    return [replace(each, consequences=tuple(later)) if each is first else each for each in kept]


def _when(finding: Finding, numbers: dict[int, int], by_call: dict[tuple[str, int], CallRecord]) -> When:
    stage = STAGES[finding.rule]
    if finding.rule == "nonfinite-parameter":
        return (-1 if finding.call is None else finding.call), stage
    call = by_call.get((finding.path, finding.call)) if finding.call is not None else None
    number = numbers.get(id(call), 0) if call is not None else finding.evidence.get("pass", 0)
    return int(number), stage


def _follows(finding: Finding, first: Finding, when: When, start: When, evidence: Evidence) -> bool:
    """Whether a finding is a consequence of the first: it is later, and not about data that no module computed."""
    if finding is first:
        return False
    if finding.rule == "nonfinite-input":
        return when > start and _was_made(finding, evidence)
    of_weights = "parameter" in finding.evidence and "parameter" in first.evidence
    together = finding.rule == first.rule and of_weights and start[0] >= 0
    return when > start or (together and when == start)


def _was_made(finding: Finding, evidence: Evidence) -> bool:
    """Whether a module computed the input of a call."""
    place = finding.path, finding.call
    return any(flow.place == place and flow.kind == "input" and flow.sources for flow in evidence.flows or ())
