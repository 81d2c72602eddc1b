"""Finding, Findings, Rule: what a check gives back, and what it asks."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

from hookline.checking.evidence import Evidence
from hookline.errors import ArgumentError, RecordError
from hookline.messages import wrong_choice
from hookline.record.record import Run
from hookline.result import Result
from hookline.store.codec import plain
from hookline.store.folder import write

Severity: TypeAlias = Literal["note", "warning", "error"]
"""How bad a finding is."""
SEVERITIES: tuple[Severity, ...] = ("note", "warning", "error")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule found.

    - `path`: the module's, "" for the model itself; `call`: which call of it (0 is the first), None for all;
    - `message`: what is wrong; `evidence`: the figures that say so, by name;
    - `rule`, `severity` ("note", "warning", "error"), `advice` (what to do): where a rule leaves them out, its own;
    - `consequences`: findings that follow from this one, as all those after the first NaN.
    """

    path: str
    message: str
    call: int | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
    severity: Severity | None = None
    rule: str = ""
    advice: str = ""
    consequences: tuple["Finding", ...] = ()

    @property
    def text(self) -> str:
        """The message, and how many findings follow from this one."""
        count = len(self.consequences)
        return self.message + (f" (+ {count} that follow{'s' if count == 1 else ''} from it)" if count else "")

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON takes it: numbers that are not finite are text."""
        figures = {name: _plain(value) for name, value in self.evidence.items()}
        own = {**{name: getattr(self, name) for name in FIELDS}, "evidence": figures}
        return {**own, "consequences": [each.to_dict() for each in self.consequences]}

    def __str__(self) -> str:
        return f"{self.severity}: {self.path or '(the model)'}: {self.text} [{self.rule}]"


FIELDS = ("rule", "severity", "path", "call", "message", "evidence", "advice")


def _plain(value: Any) -> Any:
    """A figure of the evidence; text of anything that JSON cannot hold."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return plain(value) if isinstance(value, bool | int | float | str | None) else str(value)


@dataclass(frozen=True, slots=True)
class Rule:
    """A question that `check` asks: a function of the `Evidence` that gives a `Finding` for each thing it finds; its
    name, and the severity and the advice of what it finds where that says nothing of its own."""

    name: str
    severity: Severity
    advice: str
    function: Callable[[Evidence], Iterable[Finding]]

    def __call__(self, evidence: Evidence) -> list[Finding]:
        """What the rule finds in the evidence."""
        try:
            found = [*self.function(evidence)]
        except Exception as error:
            error.add_note(f"hookline: in the rule {self.name!r} of a check")
            raise
        return [
            replace(each, rule=self.name, severity=each.severity or self.severity, advice=each.advice or self.advice)
            for each in found
        ]


def rule(
    name: str, *, severity: Severity = "warning", advice: str = ""
) -> Callable[[Callable[[Evidence], Iterable[Finding]]], Rule]:
    """Makes a `Rule` of a function of the `Evidence` that gives `Finding`s.

    >>> import torch, hookline
    >>> @hookline.rule("loud", advice="Scale it down.")
    ... def loud(evidence):
    ...     for call in evidence.run:
    ...         if call.output.absmax > 100:
    ...             yield hookline.Finding(call.path, f"gives {call.output.absmax:g}", call=call.index)
    >>> model = torch.nn.Sequential(torch.nn.Identity())
    >>> [str(found) for found in hookline.check(model, torch.ones(2) * 500, rules=[loud])]
    ['warning: (the model): gives 500 [loud]', 'warning: 0: gives 500 [loud]']
    """
    if severity not in SEVERITIES:
        raise ArgumentError(wrong_choice("severity", severity, [*map(repr, SEVERITIES)]))
    return lambda function: Rule(name, severity, advice, function)


def _rank(finding: Finding) -> tuple[int, int]:
    return -SEVERITIES.index(finding.severity or "note"), finding.call or 0


class Findings(Result[Finding]):
    """What a check found, worst first. True where something above a note was found: a note alone is not a fault.
    Printed it is a table.

    `findings["encoder"]` is the worst finding of a module, `findings["encoder", 1]` the next one, `findings[0]` the
    worst of all; `in` tells whether anything was found in a module.

    `run` is the `Run` that was judged; `error` what the model, the loss or the backward pass raised while it was
    checked. `check(model)` without inputs gives findings that are a `with` block: they are there once it is left.
    """

    noun = "findings"
    entry = "finding"
    columns = ("rule", "severity", "path", "call", "message", "advice")

    def __init__(self, *, block: "Callable[[Findings], AbstractContextManager[None]] | None" = None) -> None:
        self._block = block
        self._open: AbstractContextManager[None] | None = None
        self._found: tuple[Finding, ...] | None = None
        self._run: Run | None = None
        self._looked: tuple[str, ...] = ()
        self.error: BaseException | None = None

    def settle(
        self,
        run: Run,
        found: Iterable[Finding],
        error: BaseException | None = None,
        *,
        looked: tuple[str, ...] = (),
    ) -> Self:
        """Take what was found: the worst first, of these the earliest call, of these the first rule."""
        self._run, self.error, self._looked = run, error, looked
        self._found = tuple(
            sorted(found, key=lambda each: (-SEVERITIES.index(each.severity or "note"), each.call or 0))
        )
        return self

    @property
    def found(self) -> tuple[Finding, ...]:
        """The findings; RecordError where the check has not run yet."""
        if self._found is None:
            raise RecordError(
                "nothing was checked yet: pass the model's inputs, hookline.check(model, x), or run your own training "
                "steps within `with hookline.check(model) as findings:` and read the findings after the block"
            )
        return self._found

    @property
    def run(self) -> Run:
        """The run that was judged."""
        assert self.found is not None
        assert self._run is not None
        return self._run

    @property
    def looked(self) -> tuple[str, ...]:
        """What the check looked at, which rules it asked, and what it could not judge, a line each; printed where
        nothing was found."""
        assert self.found is not None
        return self._looked

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding; None where nothing was found."""
        return self.found[0].severity if self.found else None

    def of(self, rule: str) -> list[Finding]:
        """What one rule found."""
        return [each for each in self.found if each.rule == rule]

    def at_least(self, severity: Severity) -> list[Finding]:
        """What is as bad as that, or worse."""
        return [each for each in self.found if SEVERITIES.index(each.severity or "note") >= SEVERITIES.index(severity)]

    def _entries(self) -> Sequence[Finding]:
        return self.found

    def _paths(self) -> Iterable[str]:
        return dict.fromkeys((*(each.path for each in self.found), *self.run.modules))

    def _why_empty(self, path: str) -> str | None:
        return "was checked, and nothing was found in it" if path in self.run.modules else None

    def _row(self, entry: Finding, /) -> Mapping[str, Any]:
        return {name: getattr(entry, name) for name in self.columns}

    def to_dict(self) -> dict[str, Any]:
        """The findings as plain data that JSON can hold; `findings.run.to_dict()` is the run that was judged."""
        return {"model": self.run.model, "worst": self.worst, "findings": [each.to_dict() for each in self.found]}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the findings and the run that was judged to a folder, whole or not at all; findings saved there before
        are replaced. Of `error` the class and the text are kept; loaded it is a RecordError.

        Raises StoreError where the folder holds something else or a kept value cannot be written.
        """
        from hookline.checking.findings_document import to_document

        write(folder, *to_document(self), kind=self.noun)

    @property
    def summary(self) -> str:
        """How many findings of which severity, in a line."""
        counts = {severity: sum(each.severity == severity for each in self.found) for severity in reversed(SEVERITIES)}
        told = ", ".join(f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items() if count)
        return f"{self.run.model}: {told or 'nothing found'}"

    def __bool__(self) -> bool:
        return bool(self.at_least("warning"))

    def __enter__(self) -> Self:
        if self._block is None or self._open is not None or self._found is not None:
            raise RecordError("this check has run already; call hookline.check(model) again for another")
        block = self._block(self)
        block.__enter__()
        self._open = block
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block, self._open = self._open, None
        if block is not None:
            block.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return "<Findings of a check that has not run yet>" if self._found is None else super().__repr__()
