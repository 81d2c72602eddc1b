"""Edits on disk: a JSON document and the tensors it names, as runs are saved."""

import math
import os
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hookline.edits import arithmetic, directions, recorded
from hookline.edits.edit import Edit, chain
from hookline.errors import EditError
from hookline.record.record import Run
from hookline.record.run_document import decode, to_document
from hookline.store.folder import read, write
from hookline.store.members import (
    LARGEST,
    NOT_FINITE,
    MemberError,
    damage_told,
    expect_object,
    expected,
    flag,
    maybe,
    member,
    number,
    one_of,
    parts,
    text,
    whole,
)

KINDS: dict[str, type[Edit]] = {
    kind.__name__: kind
    for kind in (
        chain,
        *(arithmetic.zero, arithmetic.replace, arithmetic.add, arithmetic.scale, arithmetic.clamp),
        *(arithmetic.noise, arithmetic.swap),
        *(directions.project_out, directions.project_on, directions.low_rank),
        *(recorded.patch, recorded.mean, recorded.resample),
    )
}


def save(edit: Edit, folder: str | os.PathLike[str]) -> None:
    """Write an edit to a folder, whole or not at all: `edit.json` and, where it holds tensors, `tensors.safetensors`.

    Raises EditError for one that is a function of yours or a class of your own, StoreError where the folder holds
    something else.
    """
    tensors: dict[str, Tensor] = {}
    document = {"edit": _encode(edit, "edit", tensors)}
    write(folder, document, {name: tensor.detach() for name, tensor in tensors.items()}, kind="edit")


def load(folder: str | os.PathLike[str]) -> Edit:
    """The edit that `save` wrote, with parameters that can be trained on; StoreError where it cannot be read.

    >>> import tempfile
    >>> from hookline import edits
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     edits.save(edits.scale(2.0) >> edits.add(torch.ones(3)), f"{folder}/edit")
    ...     edits.load(f"{folder}/edit")
    scale(factor=2.0) >> add(vector=float32[3] cpu, scale=1.0)
    """
    document, tensors = read(folder, kind="edit")
    with damage_told(os.path.join(folder, "edit.json")):
        expect_object(document, frozenset(("edit",)))
        return member(document, "edit", lambda data: _edit(data, tensors))


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Edit):
        kind = type(value).__name__
        if KINDS.get(kind) is not type(value):
            raise EditError(
                f"{value!r} cannot be saved: only the edits of hookline.edits can, not functions or classes"
            )
        return {"edit": kind, **{key: _encode(part, f"{name}.{key}", tensors) for key, part in value.held().items()}}
    if isinstance(value, Tensor):
        known = next((key for key, tensor in tensors.items() if tensor is value), name)  # one that two edits share
        tensors[known] = value
        return {"tensor": known, "trained": value.requires_grad}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, Run):
        document, own = to_document(value)
        tensors.update({f"{name}/{key}": tensor for key, tensor in own.items()})
        return {"run": document, "name": name}
    if isinstance(value, tuple | list):
        parts = [_encode(part, f"{name}.{place}", tensors) for place, part in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    return value


def _edit(data: Any, tensors: dict[str, Tensor], depth: int = 0) -> Edit:
    kind = KINDS[member(expect_object(data), "edit", one_of(*KINDS))]
    if depth == DEEPEST:
        raise MemberError(f"is nested more than {DEEPEST} deep")
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    expect_object(data, frozenset(("edit", *names)))
    held = {name: member(data, name, partial(_held, name=name, tensors=tensors, depth=depth)) for name in names}
    try:
        return kind(**held)
    except EditError as error:
        raise MemberError(f"is no edit: {error}") from None


def _held(data: Any, name: str, tensors: dict[str, Tensor], depth: int) -> Any:
    """What a field of an edit holds; MemberError where that is not of a type that this field takes."""
    if name == "edits":
        held = member(expect_object(data, TUPLE), "tuple", lambda value: value)
        return tuple(parts(held, lambda part: _edit(part, tensors, depth + 1)))
    found = _decode(data, tensors)
    what, fits = HELD[name]
    if not fits(found):
        raise expected(what, data)
    return found


def _decode(data: Any, tensors: dict[str, Tensor], depth: int = 0) -> Any:
    """A tensor, a run, a slice, a tuple or list, a number, text or null."""
    if depth == DEEPEST:
        raise MemberError(f"is nested more than {DEEPEST} deep")
    if isinstance(data, list):
        return parts(data, lambda part: _decode(part, tensors, depth + 1))
    if isinstance(data, dict):
        if not data.keys() & DECODERS.keys():
            raise MemberError("is of no known kind")
        return next(decode for name, decode in DECODERS.items() if name in data)(data, tensors, depth)
    return number(data) if isinstance(data, float) else data


def _tensor(data: Any, tensors: dict[str, Tensor], _: int) -> Tensor:
    name = member(expect_object(data, frozenset(("tensor", "trained"))), "tensor", text)
    trained = member(data, "trained", flag)
    if name not in tensors:
        raise MemberError(f"names a tensor {name!a} that is not in tensors.safetensors").within("tensor")
    if trained and not (tensors[name].is_floating_point() or tensors[name].is_complex()):
        raise MemberError("is not of a dtype that is trained").within("tensor")
    if trained and not tensors[name].requires_grad:
        tensors[name] = torch.nn.Parameter(tensors[name])
    return tensors[name]


def _slice(data: Any, *_: Any) -> slice:
    ends = member(expect_object(data, frozenset(("slice",))), "slice", lambda value: parts(value, maybe(whole)))
    if len(ends) != 3:
        raise expected("a list of 3", data["slice"]).within("slice")
    return slice(*ends)


def _float(data: Any, *_: Any) -> float:
    return NOT_FINITE[member(expect_object(data, frozenset(("float",))), "float", one_of(*NOT_FINITE))]


def _run(data: Any, tensors: dict[str, Tensor], _: int) -> Run:
    prefix = member(expect_object(data, frozenset(("run", "name"))), "name", text) + "/"
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return member(data, "run", lambda document: decode(document, own))


def _tuple(data: Any, tensors: dict[str, Tensor], depth: int) -> tuple[Any, ...]:
    return tuple(
        member(
            expect_object(data, TUPLE),
            "tuple",
            lambda value: parts(value, lambda part: _decode(part, tensors, depth + 1)),
        )
    )


DEEPEST = 50
TUPLE = frozenset(("tuple",))
DECODERS: dict[str, Callable[[Any, dict[str, Tensor], int], Any]] = {
    "tensor": _tensor,
    "slice": _slice,
    "float": _float,
    "run": _run,
    "tuple": _tuple,
}


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) <= LARGEST


def _is_places(value: Any) -> bool:
    return (
        _is_whole(value) or isinstance(value, slice) or (isinstance(value, list | tuple) and all(map(_is_whole, value)))
    )


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | int | float)


HELD: dict[str, tuple[str, Callable[[Any], bool]]] = {  # what each field of an edit takes
    **dict.fromkeys(("value", "vector", "factor", "directions", "scale", "std"), ("a tensor or a number", _is_tensor)),
    **dict.fromkeys(("down", "up"), ("a matrix", lambda value: isinstance(value, Tensor) and value.dim() == 2)),
    **dict.fromkeys(("min", "max"), ("a tensor, a number or null", lambda value: value is None or _is_tensor(value))),
    **dict.fromkeys(("seed", "axis"), ("a whole number", _is_whole)),
    **dict.fromkeys(("first", "second"), ("a place, a slice or a list of places", _is_places)),
    "run": ("a run", lambda value: isinstance(value, Run)),
    "path": ("text or null", lambda value: isinstance(value, str | None)),
    "index": ("a whole number or null", lambda value: value is None or _is_whole(value)),
    "over": ("an axis or several", _is_places),
}
