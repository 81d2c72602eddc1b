"""Turn a Run into a plain document and named tensors, and back. docs/format.md shows the document."""

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from hookline.errors import ChangedTensorError
from hookline.record.merge import merged
from hookline.record.record import CallRecord, Run
from hookline.record.values import KINDS, kinds_kept
from hookline.store.codec import Reader, Schema, Writer
from hookline.store.members import (
    MemberError,
    count,
    damage_told,
    expect_object,
    flag,
    listed,
    mapped,
    maybe,
    member,
    number,
    optional,
    parts,
    text,
    whole,
)

T = TypeVar("T")


def _setting(value: Any) -> Any:
    """One setting of a run: text, true, false, null, a number, or a list of texts."""
    if isinstance(value, list):
        return parts(value, text)
    return number(value) if isinstance(value, float) else value if not isinstance(value, dict) else text(value)


RUN = Schema(
    Run,
    {"model": text, "modules": mapped(text), "aliases": mapped(text), "settings": mapped(_setting)},
    beside=("rank", "world_size", "calls"),
)
CALL = Schema(
    CallRecord,
    {
        **{"path": text, "index": count, "type": text, "began": number, "seconds": number},
        **{"thread": whole, "training": flag, "error": maybe(text)},
    },
    beside=("recompute", "parent", "args", "kwargs", "output"),
)
GATHERED = frozenset(("ranks",))


def to_document(run: Run) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document of a run and the tensors that it names. That of a gathered run has the documents of all ranks.

    Raises StoreError where the run holds a value that JSON and safetensors cannot, and ChangedTensorError where it
    refers to a tensor that was changed since.
    """
    writer = Writer(KINDS)
    if run.ranks:
        ranks = [_from_run(own, writer, f"rank{rank}/") for rank, own in enumerate(run.ranks)]
        return {"ranks": ranks}, writer.tensors
    return _from_run(run, writer), writer.tensors


def _from_run(run: Run, writer: Writer, prefix: str = "") -> dict[str, Any]:
    writer.prefix = prefix
    numbers = {id(call): number for number, call in enumerate(run.calls)}
    return {
        **RUN.write(run),
        "rank": run.rank,
        "world_size": run.world_size,
        "calls": [_from_call(call, numbers, writer) for call in run.calls],
    }


def from_document(document: Any, tensors: Mapping[str, Tensor]) -> Run:
    """The run in a document; StoreError that names the first wrong member."""
    with damage_told("the document of this run"):
        return decode(document, tensors)


def decode(document: Any, tensors: Mapping[str, Tensor]) -> Run:
    """The run in a document or in a part of one; MemberError where it is not a run."""
    expect_object(document)
    if "ranks" not in document:
        return _to_run(document, tensors)
    expect_object(document, GATHERED)
    runs = member(document, "ranks", lambda value: parts(value, lambda own: _to_rank(own, tensors)))
    if not runs:
        raise MemberError("is empty").within("ranks")
    return merged(runs)


def _to_rank(document: Any, tensors: Mapping[str, Tensor]) -> Run:
    """The run of one rank, in which path and index must be unique."""
    run = _to_run(document, tensors)
    first: dict[tuple[str, int], int] = {}
    for call in run.calls:
        if first.setdefault((call.path, call.index), call.number) != call.number:
            again = f"has the path and index of call {first[call.path, call.index]}"
            raise MemberError(again).within(call.number).within("calls")
    return run


def _to_run(document: Any, tensors: Mapping[str, Tensor]) -> Run:
    run = Run(
        **RUN.values(document),
        rank=optional(document, "rank", maybe(count), None),
        world_size=optional(document, "world_size", maybe(lambda size: whole(size, 1)), None),
    )
    if run.rank is not None and (run.world_size is None or run.rank >= run.world_size):
        raise MemberError(f"is not below the world_size, which is {run.world_size}").within("rank")
    keep, inputs = (run.settings.get(name) for name in ("keep", "inputs"))
    taken, gave = (Reader(tensors, kinds_kept(own, keep)) for own in (inputs, keep))
    member(document, "calls", listed(lambda data: run.calls.append(_to_call(data, run.calls, taken, gave))))
    return run


def _from_call(call: CallRecord, numbers: dict[int, int], writer: Writer) -> dict[str, Any]:
    number = numbers[id(call)]
    try:
        values = {name: writer.value(getattr(call, name), f"{number}.{name}") for name in ("args", "kwargs", "output")}
    except ChangedTensorError as error:
        where = f"{call.path or 'the model'} ({call.type}, call {call.index})"
        raise ChangedTensorError(f"cannot save {where}: {error}") from error
    parent = None if call.parent is None else numbers[id(call.parent)]
    own = {**CALL.write(call), "training": bool(call.training)}  # a user's module may hold any truthy value
    return {**own, "recompute": call.recompute, "parent": parent, **values}


def _to_call(data: Any, earlier: list[CallRecord], taken: Reader, gave: Reader) -> CallRecord:
    call = CallRecord()
    for name, value in CALL.values(data).items():
        setattr(call, name, value)
    call.number = len(earlier)
    if optional(data, "recompute", flag, False):
        call.recompute = True
    parent = member(data, "parent", maybe(lambda number: _earlier(number, len(earlier))))
    call.parent = None if parent is None else earlier[parent]
    call.args = member(data, "args", lambda value: _of_kind(taken.value(value), tuple))
    call.kwargs = member(data, "kwargs", lambda value: _of_kind(taken.value(value), dict))
    call.output = member(data, "output", gave.value)
    return call


def _earlier(place: Any, calls: int) -> int:
    if not 0 <= whole(place) < calls:
        raise MemberError(f"names call {place} as the parent, which does not come before it")
    return int(place)


def _of_kind(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise MemberError(f"expected a value of kind '{kind.__name__}'")
    return value
