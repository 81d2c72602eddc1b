"""Turn Findings, with the run that was judged, into a plain document, and back."""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

from torch import Tensor

from hookline.checking.finding import SEVERITIES, Finding, Findings, Severity
from hookline.errors import RecordError
from hookline.record import run_document
from hookline.store.members import (
    NOT_FINITE,
    MemberError,
    count,
    expect_object,
    listed,
    mapped,
    maybe,
    member,
    number,
    one_of,
    text,
)

FINDINGS = frozenset(("model", "worst", "findings", "looked", "error", "run"))
FINDING = frozenset(("rule", "severity", "path", "call", "message", "evidence", "advice", "consequences"))
DEEPEST = 100


def to_document(findings: Findings) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document of findings, with that of their run, and the tensors that the run names."""
    run, tensors = run_document.to_document(findings.run)
    error = None if findings.error is None else _told(findings.error)
    return {**findings.to_dict(), "looked": [*findings.looked], "error": error, "run": run}, tensors


def _told(error: BaseException) -> str:
    """The class and text of an error; a loaded error has both as its text."""
    return str(error) if type(error) is RecordError else f"{type(error).__name__}: {error}"


def decode(document: Any, tensors: Mapping[str, Tensor]) -> Findings:
    """The findings in a document; MemberError where it has none."""
    expect_object(document, FINDINGS)
    error = member(document, "error", maybe(text))
    return Findings().settle(
        member(document, "run", lambda own: run_document.decode(own, tensors)),
        member(document, "findings", listed(_finding)),
        None if error is None else RecordError(error),
        looked=member(document, "looked", listed(text)),
    )


def _finding(data: Any, depth: int = 0) -> Finding:
    if depth == DEEPEST:
        raise MemberError(f"is nested more than {DEEPEST} deep")
    expect_object(data, FINDING)
    return Finding(
        **{name: member(data, name, text) for name in ("rule", "path", "message", "advice")},
        severity=cast(Severity | None, member(data, "severity", maybe(one_of(*SEVERITIES)))),
        call=member(data, "call", maybe(count)),
        evidence=member(data, "evidence", mapped(_figure)),
        consequences=member(data, "consequences", listed(partial(_finding, depth=depth + 1))),
    )


def _figure(value: Any) -> Any:
    """One figure of the evidence: text, true, false, null, a number, or a list of these."""
    if isinstance(value, list):
        return [*listed(_figure)(value)]
    if isinstance(value, str):
        return NOT_FINITE.get(value, value)
    return value if isinstance(value, bool | None) else number(value)
