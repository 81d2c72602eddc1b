"""Save and load edits: a JSON document and the tensors it names, in the format of saved runs."""

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
from hookline.record import run_document
from hookline.record.record import Run
from hookline.store.codec import Kind, Reader, Writer
from hookline.store.folder import read, write
from hookline.store.members import (
    LARGEST,
    MemberError,
    damage_told,
    expect_object,
    expected,
    flag,
    listed,
    maybe,
    member,
    one_of,
    text,
    whole,
)

EDITS: dict[str, type[Edit]] = {
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
    """Write an edit to a folder, whole or not at all: `edit.json` and, if it has tensors, `tensors.safetensors`.

    Raises EditError for your own functions and classes, StoreError where the folder holds something else.
    """
    writer = Writer(KINDS)
    document = {"edit": writer.value(edit, "edit")}
    write(folder, document, {name: tensor.detach() for name, tensor in writer.tensors.items()}, kind="edit")


def load(folder: str | os.PathLike[str]) -> Edit:
    """Load the edit that `save` wrote, with parameters that can be trained further.

    Raises StoreError where it cannot be read.

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
        found = member(document, "edit", Reader(tensors, KINDS).value)
        if not isinstance(found, Edit):
            raise expected("an edit", document["edit"]).within("edit")
        return found


def _write_edit(writer: Writer, edit: Edit, name: str) -> dict[str, Any]:
    kind = type(edit).__name__
    if EDITS.get(kind) is not type(edit):
        raise EditError(f"{edit!r} cannot be saved: only the edits of hookline.edits can, not your own")
    return {"edit": kind, **{key: writer.value(part, f"{name}.{key}") for key, part in edit.held().items()}}


def _read_edit(reader: Reader, data: Any) -> Edit:
    kind = EDITS[member(data, "edit", one_of(*EDITS))]
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    expect_object(data, frozenset(("kind", "edit", *names)))
    held = {name: member(data, name, partial(_held, reader, name)) for name in names}
    try:
        return kind(**held)
    except EditError as error:
        raise MemberError(f"is not an edit: {error}") from None


def _held(reader: Reader, name: str, data: Any) -> Any:
    """The value of a field of an edit; MemberError where it is of a type that the field does not take."""
    found = reader.value(data)
    what, fits = HELD[name]
    if not fits(found):
        raise expected(what, data)
    return found


def _write_tensor(writer: Writer, tensor: Tensor, name: str) -> dict[str, Any]:
    return {"name": writer.put(tensor, name), "trained": tensor.requires_grad}


def _read_tensor(reader: Reader, data: Any) -> Tensor:
    found = member(expect_object(data, frozenset(("kind", "name", "trained"))), "name", reader.named)
    if not member(data, "trained", flag):
        return found
    if not (found.is_floating_point() or found.is_complex()):
        raise MemberError("is not of a dtype that can be trained").within("name")
    if not found.requires_grad:  # two edits may share one parameter
        found = reader.tensors[data["name"]] = torch.nn.Parameter(found)
    return found


def _write_slice(_: Writer, value: slice, name: str) -> dict[str, Any]:
    return {"parts": [value.start, value.stop, value.step]}


def _read_slice(_: Reader, data: Any) -> slice:
    ends = member(expect_object(data, frozenset(("kind", "parts"))), "parts", listed(maybe(whole)))
    if len(ends) != 3:
        raise expected("a list of 3", data["parts"]).within("parts")
    return slice(*ends)


def _write_run(writer: Writer, run: Run, name: str) -> dict[str, Any]:
    document, tensors = run_document.to_document(run)
    writer.tensors.update({f"{name}/{key}": tensor for key, tensor in tensors.items()})
    return {"run": document, "name": name}


def _read_run(reader: Reader, data: Any) -> Run:
    prefix = member(expect_object(data, frozenset(("kind", "run", "name"))), "name", text) + "/"
    own = {name.removeprefix(prefix): tensor for name, tensor in reader.tensors.items() if name.startswith(prefix)}
    return member(data, "run", lambda document: run_document.decode(document, own))


KINDS = {
    "edit": Kind(Edit, _write_edit, _read_edit),
    "tensor": Kind(Tensor, _write_tensor, _read_tensor),
    "slice": Kind(slice, _write_slice, _read_slice),
    "run": Kind(Run, _write_run, _read_run),
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
    "edits": ("a tuple of edits", lambda value: isinstance(value, tuple) and all(isinstance(e, Edit) for e in value)),
    "run": ("a run", lambda value: isinstance(value, Run)),
    "path": ("text or null", lambda value: isinstance(value, str | None)),
    "index": ("a whole number or null", lambda value: value is None or _is_whole(value)),
    "over": ("an axis or several", _is_places),
}
