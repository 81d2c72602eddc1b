"""Edits on disk: a JSON document and the tensors it names, as runs are saved."""

import hashlib
import json
import os
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from hookline.edits import arithmetic, directions, recorded
from hookline.edits.edit import Edit, chain
from hookline.errors import EditError, StoreError
from hookline.record.document import from_document, to_document
from hookline.record.record import Run
from hookline.store.folder import read, write

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
    write(folder, {"edit": _encode(edit, "edit", tensors)}, tensors, kind="edit")


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
    try:
        edit = _decode(document["edit"], tensors)
    except (KeyError, TypeError, ValueError, AttributeError, EditError) as error:
        raise StoreError(f"the edit in {folder} is damaged: {type(error).__name__}: {error}") from error
    if not isinstance(edit, Edit):
        raise StoreError(f"{folder} holds no edit")
    return edit


def fingerprint(edit: Edit) -> str:
    """An edit in a line: as it prints, and a hash of what it holds. Of functions only the name counts."""
    tensors: dict[str, Tensor] = {}
    try:
        text = json.dumps(_encode(edit, "edit", tensors), sort_keys=True)
    except EditError:
        return repr(edit)
    found = hashlib.blake2b(text.encode(), digest_size=8)
    for tensor in tensors.values():
        found.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"{edit!r} {found.hexdigest()}"


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Edit):
        kind = type(value).__name__
        if KINDS.get(kind) is not type(value):
            raise EditError(
                f"{value!r} cannot be saved: only the edits of hookline.edits can, not functions or classes"
            )
        held = [field.name for field in fields(value) if field.init]  # type: ignore[arg-type]
        return {"edit": kind, **{key: _encode(getattr(value, key), f"{name}.{key}", tensors) for key in held}}
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {"tensor": name, "trained": isinstance(value, torch.nn.Parameter)}
    if isinstance(value, Run):
        document, own = to_document(value)
        tensors.update({f"{name}/{key}": tensor for key, tensor in own.items()})
        return {"run": document, "name": name}
    if isinstance(value, tuple | list):
        parts = [_encode(part, f"{name}.{place}", tensors) for place, part in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    return value


def _decode(data: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(data, list):
        return [_decode(part, tensors) for part in data]
    if not isinstance(data, dict):
        return data
    if "edit" in data:
        return KINDS[data["edit"]](**{key: _decode(value, tensors) for key, value in data.items() if key != "edit"})
    if "tensor" in data:
        tensor = tensors[data["tensor"]]
        return torch.nn.Parameter(tensor) if data["trained"] else tensor
    if "run" in data:
        prefix = data["name"] + "/"
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        return from_document(data["run"], own)
    return tuple(_decode(part, tensors) for part in data["tuple"])
