"""A Run as a plain document and named tensors, and back. docs/format.md shows the document."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor

from hookline.errors import ChangedTensorError, StoreError
from hookline.model.sharded import local_part
from hookline.model.tensors import Fields, Opaque
from hookline.record.merge import merged
from hookline.record.record import CallRecord, Run, TensorInfo
from hookline.record.values import DEEPEST, Values
from hookline.store.members import (
    MemberError,
    Read,
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

PLAIN: dict[str, Read[Any]] = {
    **{"path": text, "index": count, "type": text, "began": number, "seconds": number},
    **{"thread": whole, "training": flag, "error": maybe(text)},
}
CALL = frozenset((*PLAIN, "recompute", "parent", "args", "kwargs", "output"))
HEAD = frozenset(("model", "modules", "aliases", "settings", "rank", "world_size", "calls"))
GATHERED = frozenset(("ranks",))


def to_document(run: Run) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document of a run, and the tensors that it names; of a gathered run it holds the documents of all ranks.

    Raises StoreError where the run holds what JSON and safetensors cannot, and ChangedTensorError where it refers to a
    tensor that was changed since.
    """
    shelf = Shelf()
    if run.ranks:
        return {"ranks": [_from_run(own, shelf, f"rank{rank}/") for rank, own in enumerate(run.ranks)]}, shelf.tensors
    return _from_run(run, shelf), shelf.tensors


def _from_run(run: Run, shelf: "Shelf", prefix: str = "") -> dict[str, Any]:
    shelf.prefix = prefix
    numbers = {id(call): number for number, call in enumerate(run.calls)}
    return {
        "model": run.model,
        "modules": run.modules,
        "aliases": run.aliases,
        "settings": run.settings,
        "rank": run.rank,
        "world_size": run.world_size,
        "calls": [_from_call(call, numbers, shelf) for call in run.calls],
    }


def from_document(document: Any, tensors: Mapping[str, Tensor]) -> Run:
    """The run that a document describes; StoreError that names the first member that is not as it should be."""
    with damage_told("the document of this run"):
        return decode(document, tensors)


def decode(document: Any, tensors: Mapping[str, Tensor]) -> Run:
    """The run that a document describes, or that a part of one does; MemberError where it describes none."""
    expect_object(document)
    if "ranks" not in document:
        return _to_run(document, tensors)
    expect_object(document, GATHERED)
    runs = member(document, "ranks", lambda value: parts(value, lambda own: _to_rank(own, tensors)))
    if not runs:
        raise MemberError("is empty").within("ranks")
    return merged(runs)


def _to_rank(document: Any, tensors: Mapping[str, Tensor]) -> Run:
    """The run of one rank, whose calls are told from each other by path and index."""
    run = _to_run(document, tensors)
    first: dict[tuple[str, int], int] = {}
    for call in run.calls:
        if first.setdefault((call.path, call.index), call.number) != call.number:
            again = f"has the path and index of call {first[call.path, call.index]}"
            raise MemberError(again).within(call.number).within("calls")
    return run


def _to_run(document: Any, tensors: Mapping[str, Tensor]) -> Run:
    expect_object(document, HEAD)
    run = Run(
        model=member(document, "model", text),
        modules=member(document, "modules", mapped(text)),
        aliases=member(document, "aliases", mapped(text)),
        settings=member(document, "settings", mapped(_setting)),
        rank=optional(document, "rank", maybe(count), None),
        world_size=optional(document, "world_size", maybe(lambda size: whole(size, 1)), None),
    )
    if run.rank is not None and (run.world_size is None or run.rank >= run.world_size):
        raise MemberError(f"is not below the world_size, which is {run.world_size}").within("rank")
    values = Values(tensors)
    member(document, "calls", listed(lambda data: run.calls.append(_to_call(data, run.calls, values))))
    return run


def _setting(value: Any) -> Any:
    """How a run was watched: text, true, false, null, a number, or a list of texts."""
    if isinstance(value, list):
        return parts(value, text)
    return number(value) if isinstance(value, float) else value if not isinstance(value, dict) else text(value)


@dataclasses.dataclass(slots=True)
class Shelf:
    """The tensors of a run by name. One that was kept several times stands there once, under its first name."""

    tensors: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    names: dict[int, str] = dataclasses.field(default_factory=dict)
    prefix: str = ""
    depth: int = 0

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """A block inside of a value; StoreError where a reader would not look that deep."""
        if self.depth == DEEPEST - 1:
            raise StoreError(f"{name} cannot be saved: it is nested more than {DEEPEST - 1} deep")
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def put(self, tensor: Tensor, name: str) -> str:
        """The name of a tensor, which is `name` where it had none."""
        name = self.names.setdefault(id(tensor), self.prefix + name)
        self.tensors[name] = local_part(tensor)
        return name


def _from_call(call: CallRecord, numbers: dict[int, int], shelf: Shelf) -> dict[str, Any]:
    def encode(data: Any, name: str) -> Any:
        return _encode(data, f"{numbers[id(call)]}.{name}", shelf)

    try:
        values = {name: encode(getattr(call, name), name) for name in ("args", "kwargs", "output")}
    except ChangedTensorError as error:
        where = f"{call.path or 'the model'} ({call.type}, call {call.index})"
        raise ChangedTensorError(f"cannot save {where}: {error}") from error
    parent = None if call.parent is None else numbers[id(call.parent)]
    plain = {name: _number(getattr(call, name)) for name in PLAIN}
    plain["training"] = bool(call.training)  # a user's module may hold anything that is true or false
    return {**plain, "recompute": call.recompute, "parent": parent, **values}


def _to_call(data: Any, earlier: list[CallRecord], values: Values) -> CallRecord:
    expect_object(data, CALL)
    call = CallRecord()
    for name, read in PLAIN.items():
        setattr(call, name, member(data, name, read))
    call.number = len(earlier)
    if optional(data, "recompute", flag, False):
        call.recompute = True
    parent = member(data, "parent", maybe(lambda number: _earlier(number, len(earlier))))
    call.parent = None if parent is None else earlier[parent]
    call.args = member(data, "args", lambda value: _of_kind(values.value(value), tuple))
    call.kwargs = member(data, "kwargs", lambda value: _of_kind(values.value(value), dict))
    call.output = member(data, "output", values.value)
    return call


def _earlier(place: Any, calls: int) -> int:
    if not 0 <= whole(place) < calls:
        raise MemberError(f"names call {place} as the parent, which does not come before it")
    return int(place)


def _of_kind(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise MemberError(f"expected a value of kind '{kind.__name__}'")
    return value


def _encode(data: Any, name: str, shelf: Shelf) -> Any:
    """Recorded data as JSON: numbers, text, None and lists as they are, everything else an object with its kind."""
    if isinstance(data, TensorInfo):
        with shelf.inside(name):
            return {"kind": "tensor", **_encode_info(data, name, shelf)}
    if isinstance(data, Tensor):
        return {"kind": "stored", "name": shelf.put(data, name)}
    if isinstance(data, bool | int | str | None):
        return data
    if isinstance(data, float):
        return data if math.isfinite(data) else {"kind": "float", "value": str(data)}
    if isinstance(data, complex):
        return {"kind": "complex", "value": [_number(data.real), _number(data.imag)]}
    if isinstance(data, Opaque):
        return {"kind": "opaque", "type": data.type}
    if isinstance(data, list | tuple | dict):
        with shelf.inside(name):
            return _encode_container(data, name, shelf)
    raise StoreError(
        f"{name} holds a {type(data).__name__}; a run saves tensors, numbers, text, lists, tuples and dicts"
    )


def _encode_container(data: Any, name: str, shelf: Shelf) -> Any:
    if isinstance(data, list):
        return _encode_all(data, name, shelf)
    if isinstance(data, tuple):
        return {"kind": "tuple", "parts": _encode_all(data, name, shelf)}
    keys, parts = _encode_all(data, name, shelf), _encode_all(dict.values(data), name, shelf)
    kind = {"kind": "fields", "type": data.type} if isinstance(data, Fields) else {"kind": "dict"}
    return {**kind, "parts": [[key, part] for key, part in zip(keys, parts, strict=True)]}


def _encode_all(parts: Iterable[Any], name: str, shelf: Shelf) -> list[Any]:
    return [_encode(part, f"{name}.{place}", shelf) for place, part in enumerate(parts)]


def _encode_info(info: TensorInfo, name: str, shelf: Shelf) -> dict[str, Any]:
    encoded: dict[str, Any] = {
        "shape": list(info.shape),
        "dtype": info.dtype_name,
        "device": str(info.device),
        "requires_grad": info.requires_grad,
    }
    if info.part is not None:
        lists = dataclasses.asdict(info.part).items()
        encoded["part"] = {name: None if part is None else [*part] for name, part in lists}
    if info.stats is not None:
        figures = {key: _number(figure) for key, figure in dataclasses.asdict(info.stats).items()}
        encoded["stats"] = {key: figure for key, figure in figures.items() if figure is not None}
    if info.grad is not None:
        encoded["grad"] = _encode_info(info.grad, f"{name}.grad", shelf)
    if info.value is not None:
        encoded["value"] = _encode(info.value, name, shelf)
    return encoded


def _number(value: Any) -> Any:
    """A number that JSON can write: those that are not finite as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
