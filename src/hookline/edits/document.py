"""Edits on disk: a JSON document and the tensors it names, as runs are saved."""

import math
import os
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
    try:
        edit = _decode(document["edit"], tensors)
    except (KeyError, TypeError, ValueError, AttributeError, EditError) as error:
        raise StoreError(f"the edit in {folder} is damaged: {type(error).__name__}: {error}") from error
    if not isinstance(edit, Edit):
        raise StoreError(f"{folder} holds no edit")
    return edit


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


def _decode(data: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(data, list):
        return [_decode(part, tensors) for part in data]
    if not isinstance(data, dict):
        return data
    if "edit" in data:
        return KINDS[data["edit"]](**{key: _decode(value, tensors) for key, value in data.items() if key != "edit"})
    if "tensor" in data:
        name = data["tensor"]
        if data["trained"] and not tensors[name].requires_grad:
            tensors[name] = torch.nn.Parameter(tensors[name])
        return tensors[name]
    if "slice" in data:
        return slice(*data["slice"])
    if "float" in data:
        return float(data["float"])
    if "run" in data:
        prefix = data["name"] + "/"
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        return from_document(data["run"], own)
    return tuple(_decode(part, tensors) for part in data["tuple"])
