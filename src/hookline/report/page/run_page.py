"""The pages of a run and of findings."""

from collections.abc import Iterator, Sequence
from typing import Any

from hookline.checking.finding import Finding, Findings
from hookline.record.record import CallRecord, Run, TensorInfo
from hookline.report.page.build import Names, cut, document, mark, number
from hookline.report.text import footnotes

CALL = (
    *("path", "index", "class", "parent", "recompute", "began", "seconds", "thread", "training", "error"),
    *("inputs", "outputs"),
)
TENSOR = ("name", "kind", "stats", "histogram", "grad")
KIND = ("shape", "dtype", "device", "requires_grad", "placement", "local_shape")
STATS = ("count", "min", "max", "mean", "std", "norm", "zeros", "nan", "inf")


def run_document(run: Run) -> dict[str, Any]:
    """The document of a run's page."""
    return _document("run", run, run.summary, [*_marks(run)])


def findings_document(findings: Findings) -> dict[str, Any]:
    """The document of a check's page: the run that was judged, with a mark for each finding."""
    run = findings.run
    first = {call.path: call.number for call in reversed(run.calls)}
    numbers = {(call.path, call.index): call.number for call in run.calls}
    places = (numbers.get((each.path, each.call or 0), first.get(each.path)) for each in findings)
    marks = [_finding_mark(finding, place) for finding, place in zip(findings, places, strict=True)]
    return _document("check", run, findings.summary, marks)


def _document(kind: str, run: Run, summary: str, marks: list[dict[str, Any]]) -> dict[str, Any]:
    names, kinds, threads = Names(), Names(), Names()
    calls = [[*_row(call, names, kinds, threads)] for call in run.calls]
    return document(
        kind,
        title=run.model,
        summary=summary.removeprefix(f"{run.model}: "),
        notes=footnotes(run),
        marks=marks,
        aliases=run.aliases,
        columns={"call": CALL, "tensor": TENSOR, "kind": KIND, "stats": STATS},
        names=[*names],
        kinds=[*kinds],
        calls=calls,
    )


def _row(call: CallRecord, names: Names, kinds: Names, threads: Names) -> Iterator[Any]:
    """The values of one call for each of CALL."""
    yield from (names(call.path), call.index, names(call.type))
    yield from (None if call.parent is None else call.parent.number, call.recompute)
    yield from (number(call.began), number(call.seconds), threads(call.thread), call.training, call.error)
    yield [_tensor(name, info, kinds) for name, info in call.named_inputs.items()]
    yield [_tensor(name, info, kinds) for name, info in call.named_outputs.items()]


def _tensor(name: str, info: TensorInfo, kinds: Names) -> list[Any]:
    """The values of one tensor for each of TENSOR, without unknown ones at the end."""
    return cut((name, kinds(_kind(info)), *_figures(info), None if info.grad is None else _gradient(info.grad, kinds)))


def _gradient(grad: TensorInfo, kinds: Names) -> list[Any]:
    """The figures and histogram of a gradient, and its kind if it is distributed: its placement may differ from its
    tensor's."""
    return cut((*_figures(grad), None if grad.placement is None else kinds(_kind(grad))))


def _kind(info: TensorInfo) -> tuple[Any, ...]:
    """The values of a tensor for each of KIND. A gathered run is not of one process, so it has no local shape."""
    local = None if info.placement is None or info.ranks else info.local_shape
    plain = (tuple(info.shape), info.dtype_name, str(info.device), info.requires_grad)
    return tuple(cut((*plain, info.placement, local)))


def _figures(info: TensorInfo) -> tuple[list[Any] | None, Sequence[int] | None]:
    stats = info.measured()
    if stats is None:
        return None, None
    return [number(getattr(stats, name)) for name in STATS], stats.histogram


def _marks(run: Run) -> Iterator[dict[str, Any]]:
    """Marks of a run: the innermost calls that raised, and the first call with NaN or Inf in its output."""
    for call in _innermost([call for call in run.calls if call.error]):
        yield mark("error", call.number, f"raised {call.error}", path=call.path)
    for call in _innermost([call for call in run.calls if _unfinite(call)])[:1]:
        text = f"the first output with NaN or Inf: {_unfinite(call)}"
        yield mark("warning", call.number, text, path=call.path)


def _innermost(calls: list[CallRecord]) -> list[CallRecord]:
    """The calls without another of them directly inside."""
    around = {id(call.parent) for call in calls}
    return [call for call in calls if id(call) not in around]


def _unfinite(call: CallRecord) -> str:
    """The number of NaN and Inf in a call's outputs as text; "" without any."""
    stats = [found for info in call.outputs if (found := info.stats)]
    counts = {"NaN": sum(each.nan for each in stats), "Inf": sum(each.inf for each in stats)}
    return " and ".join(f"{count:,} {name}" for name, count in counts.items() if count)


def _finding_mark(finding: Finding, call: int | None) -> dict[str, Any]:
    data = finding.to_dict()
    more = {name: data[name] for name in ("path", "rule", "advice", "evidence")}
    return mark(finding.severity or "note", call, finding.text, **more)
