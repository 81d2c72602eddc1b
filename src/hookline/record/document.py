"""A Run as a plain document and named tensors, and back. docs/format.md shows the document."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from hookline.errors import ChangedTensorError, StoreError
from hookline.model.sharded import Part, local_part
from hookline.model.tensors import Fields, Opaque
from hookline.record.measure import Stats
from hookline.record.merge import merged
from hookline.record.record import CallRecord, Run, Slot, TensorInfo

PLAIN = ("path", "index", "type", "began", "seconds", "thread", "training", "error")
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


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


def from_document(document: dict[str, Any], tensors: dict[str, Tensor]) -> Run:
    """The run that a document describes; StoreError where the two do not fit together."""
    part = "head"
    try:
        if "ranks" in document:
            return merged([from_document(own, tensors) for own in document["ranks"]])
        run = Run(
            model=document["model"],
            modules=document["modules"],
            aliases=document["aliases"],
            settings=document["settings"],
            rank=document.get("rank"),
            world_size=document.get("world_size"),
        )
        for number, data in enumerate(document["calls"]):
            part = f"call {number}"
            run.calls.append(_to_call(data, number, run.calls, tensors))
    except StoreError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise StoreError(
            f"the document of this run is damaged, in its {part}: {type(error).__name__}: {error}"
        ) from error
    return run


@dataclasses.dataclass(slots=True)
class Shelf:
    """The tensors of a run by name. One that was kept several times stands there once, under its first name."""

    tensors: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    names: dict[int, str] = dataclasses.field(default_factory=dict)
    prefix: str = ""

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
    return {**plain, "recompute": call.recompute, "parent": parent, **values}


def _to_call(data: dict[str, Any], number: int, earlier: list[CallRecord], tensors: dict[str, Tensor]) -> CallRecord:
    call = CallRecord()
    for name in PLAIN:
        setattr(call, name, _from_number(data[name]) if name in ("began", "seconds") else data[name])
    call.number = number
    if data.get("recompute"):
        call.recompute = True
    if data["parent"] is not None and not 0 <= data["parent"] < number:
        raise StoreError(
            f"call {number} of this run names call {data['parent']} as its parent, which does not come before it"
        )
    call.parent = None if data["parent"] is None else earlier[data["parent"]]
    call.args, call.kwargs, call.output = (_decode(data[name], tensors) for name in ("args", "kwargs", "output"))
    return call


def _encode(data: Any, name: str, shelf: Shelf) -> Any:
    """Recorded data as JSON: numbers, text, None and lists as they are, everything else an object with its kind."""
    if isinstance(data, TensorInfo):
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
    if isinstance(data, list):
        return _encode_all(data, name, shelf)
    if isinstance(data, tuple):
        return {"kind": "tuple", "parts": _encode_all(data, name, shelf)}
    if not isinstance(data, dict):
        raise StoreError(
            f"{name} holds a {type(data).__name__}; a run saves tensors, numbers, text, lists, tuples and dicts"
        )
    keys, parts = _encode_all(data, name, shelf), _encode_all(dict.values(data), name, shelf)
    kind = {"kind": "fields", "type": data.type} if isinstance(data, Fields) else {"kind": "dict"}
    return {**kind, "parts": [[key, part] for key, part in zip(keys, parts, strict=True)]}


def _encode_all(parts: Iterable[Any], name: str, shelf: Shelf) -> list[Any]:
    return [_encode(part, f"{name}.{place}", shelf) for place, part in enumerate(parts)]


def _decode(data: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(data, list):
        return [_decode(part, tensors) for part in data]
    if not isinstance(data, dict):
        return data
    return DECODERS[data["kind"]](data, tensors)


def _decode_parts(data: dict[str, Any], tensors: dict[str, Tensor]) -> dict[Any, Any]:
    return {_decode(key, tensors): _decode(part, tensors) for key, part in data["parts"]}


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


def _decode_info(data: dict[str, Any], tensors: dict[str, Tensor]) -> TensorInfo:
    info = TensorInfo()
    info.shape = tuple(data["shape"])
    info.dtype = _dtype(data["dtype"])
    info.device = torch.device(data["device"])
    info.requires_grad = data["requires_grad"]
    if "part" in data:
        info._part = _decode_part(data["part"])
    if "stats" in data:
        figures = {key: _from_number(figure) for key, figure in data["stats"].items()}
        histogram = figures.pop("histogram", None)
        info._stats = Stats(**figures, histogram=None if histogram is None else tuple(histogram))
    if "grad" in data:
        info._grad = Slot(_decode_info(data["grad"], tensors))
    if "value" in data:
        info._value = _decode(data["value"], tensors)
    return info


def _decode_part(data: dict[str, Any]) -> Part:
    place = None if data["place"] is None else tuple(data["place"])
    return Part(tuple(data["shape"]), tuple(data["placement"]), tuple(data["mesh"]), tuple(data["ranks"]), place)


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no dtype")
    return dtype


def _decode_stored(data: dict[str, Any], tensors: dict[str, Tensor]) -> Tensor:
    if data["name"] not in tensors:
        raise StoreError(f"the document of this run names a tensor {data['name']!r} that is not in its tensors file")
    return tensors[data["name"]]


DECODERS: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], Any]] = {
    "tensor": _decode_info,
    "stored": _decode_stored,
    "float": lambda data, _: NOT_FINITE[data["value"]],
    "complex": lambda data, _: complex(*map(_from_number, data["value"])),
    "opaque": lambda data, _: Opaque(data["type"]),
    "tuple": lambda data, tensors: tuple(_decode(part, tensors) for part in data["parts"]),
    "dict": _decode_parts,
    "fields": lambda data, tensors: Fields(data["type"], _decode_parts(data, tensors)),
}


def _number(value: Any) -> Any:
    """A number that JSON can write: those that are not finite as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _from_number(value: Any) -> Any:
    return NOT_FINITE[value] if isinstance(value, str) else value
