"""Finding, Findings and Rule: the result of a check, and the rules it runs."""

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
    """One finding of a rule.

    - `path`: the module, "" for the model itself;
    - `message`: what is wrong;
    - `call`: the number of the call, None for all calls;
    - `evidence`: the figures behind it, by name;
    - `severity`: "note", "warning" or "error"; None takes that of the rule;
    - `rule`: the name of the rule;
    - `advice`: what to do; "" takes that of the rule;
    - `consequences`: findings that follow from this one, such as those after the first NaN.
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
        """The message, with the number of findings that follow from this one."""
        count = len(self.consequences)
        return self.message + (f" (+ {count} that follow{'s' if count == 1 else ''} from it)" if count else "")

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain data for JSON; numbers that are not finite are text."""
        figures = {name: _plain(value) for name, value in self.evidence.items()}
        own = {**{name: getattr(self, name) for name in FIELDS}, "evidence": figures}
        return {**own, "consequences": [each.to_dict() for each in self.consequences]}

    def __str__(self) -> str:
        return f"{self.severity}: {self.path or '(the model)'}: {self.text} [{self.rule}]"


FIELDS = ("rule", "severity", "path", "call", "message", "evidence", "advice")


def _plain(value: Any) -> Any:
    """A figure of the evidence for JSON; other values as text."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return plain(value) if isinstance(value, bool | int | float | str | None) else str(value)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of `check`.

    - `name`: its name;
    - `severity`, `advice`: used for findings that have none;
    - `function`: takes the `Evidence` and yields a `Finding` for each problem.
    """

    name: str
    severity: Severity
    advice: str
    function: Callable[[Evidence], Iterable[Finding]]

    def __call__(self, evidence: Evidence) -> list[Finding]:
        """The findings of the rule in the evidence."""
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
    """Turn a function of the `Evidence` that yields `Finding`s into a `Rule`.

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
    """The findings of a check, the worst first. They are true if one is above a note, and print as a table.

    `findings["encoder"]` is the worst finding of a module, `findings["encoder", 1]` the next one, and `findings[0]` the
    worst of all. `"encoder" in findings` says whether a module has any.

    - `run`: the `Run` that was judged;
    - `error`: the exception that the model, the loss or the backward pass raised during the check, or None.

    `check(model)` without inputs returns findings that are a `with` block; they are filled when the block ends.
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
        """Fill in the findings, sorted by severity, then by call, then by rule."""
        self._run, self.error, self._looked = run, error, looked
        self._found = tuple(
            sorted(found, key=lambda each: (-SEVERITIES.index(each.severity or "note"), each.call or 0))
        )
        return self

    @property
    def found(self) -> tuple[Finding, ...]:
        """The findings; RecordError if the check has not run yet."""
        if self._found is None:
            raise RecordError(
                "nothing was checked yet: pass the model's inputs, hookline.check(model, x), or run your own training "
                "steps within `with hookline.check(model) as findings:` and read the findings after the block"
            )
        return self._found

    @property
    def run(self) -> Run:
        """The run that was judged; RecordError if the check has not run yet."""
        assert self.found is not None
        assert self._run is not None
        return self._run

    @property
    def looked(self) -> tuple[str, ...]:
        """What the check looked at, which rules it ran and what it could not judge, one line each.

        Findings print these lines if nothing was found.
        """
        assert self.found is not None
        return self._looked

    @property
    def worst(self) -> Severity | None:
        """The severity of the worst finding; None without findings."""
        return self.found[0].severity if self.found else None

    def of(self, rule: str) -> list[Finding]:
        """The findings of one rule."""
        return [each for each in self.found if each.rule == rule]

    def at_least(self, severity: Severity) -> list[Finding]:
        """The findings of this severity or worse."""
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
        """The findings as plain data for JSON; `findings.run.to_dict()` is the run that was judged."""
        return {"model": self.run.model, "worst": self.worst, "findings": [each.to_dict() for each in self.found]}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the findings and the run that was judged to a folder, whole or not at all.

        Findings saved there before are replaced. `error` is saved by its class and text, and loads as a RecordError.
        Raises StoreError where the folder holds something else or a kept value cannot be written.
        """
        from hookline.checking.findings_document import to_document

        write(folder, *to_document(self), kind=self.noun)

    @property
    def summary(self) -> str:
        """The number of findings of each severity, in a line."""
        counts = {severity: sum(each.severity == severity for each in self.found) for severity in reversed(SEVERITIES)}
        text = ", ".join(f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items() if count)
        return f"{self.run.model}: {text or 'nothing found'}"

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
