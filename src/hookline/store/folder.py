"""Write and read a folder with a JSON document and the tensors it names: written whole or not at all, checked when
read."""

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import torch as shelves
from safetensors.torch import load_file, save_file
from torch import Tensor

from hookline.errors import StoreError
from hookline.store.file import expect_room, on_disk
from hookline.store.opening import TRIES, close, opened, path_of, reason
from hookline.store.place import put_in_place
from hookline.store.staging import staging
from hookline.torch_private import FakeTensor, is_functorch_wrapped_tensor, is_wrapper_subclass

FORMAT = "hookline"
VERSIONS = {"run": 2, "diff": 2}  # the newest of each kind, 1 for the others; older ones are read
TENSORS = "tensors.safetensors"
BEGINNING = f'{{"format": "{FORMAT}"'.encode()


def write(
    folder: str | os.PathLike[str], document: Mapping[str, Any], tensors: Mapping[str, Tensor], *, kind: str = "run"
) -> None:
    """Write a document and its tensors to a folder, whole or not at all. `kind` is the name of the document.

    A folder of the same kind that hookline wrote before is replaced in one step: a reader finds the old or the new one,
    and of several processes that write the last one stays. Raises StoreError where the folder holds something else, or
    a tensor cannot be written.
    """
    target = path_of(folder)
    try:
        _refuse_others(target, kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging(target) as beside:
            fresh = beside / "fresh"
            fresh.mkdir()
            _fill(fresh, document, tensors, kind)
            on_disk(*fresh.iterdir(), fresh)
            put_in_place(fresh, target, lambda: _refuse_others(target, kind))
    except (OSError, TypeError, ValueError, SafetensorError, RuntimeError) as error:
        raise StoreError(f"cannot save to {target}: {error}") from error


def expect_folder(folder: str | os.PathLike[str], *, kind: str = "run") -> None:
    """StoreError where `write` could not create this folder."""
    target = path_of(folder)
    try:
        _refuse_others(target, kind)
        expect_room(next(parent for parent in target.parents if parent.exists()))
    except OSError as error:
        raise StoreError(f"cannot save to {target}: {reason(error)}") from error


def is_saved(folder: str | os.PathLike[str], *, kind: str = "run") -> bool:
    """Whether the folder holds something that `write` wrote before."""
    target = path_of(folder)
    try:
        return (target / f"{kind}.json").is_file() and _is_ours(target, kind)
    except OSError:
        return False


def _refuse_others(target: Path, kind: str) -> None:
    if os.path.lexists(target) and not _is_ours(target, kind):
        raise StoreError(f"{target} exists and is not a saved {kind}; give another folder, or remove it")


def pack(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[str, bytes]:
    """A document and its tensors as text and bytes, to be sent; StoreError where they cannot be written."""
    try:
        return json.dumps(document, allow_nan=False), shelves.save(_dense(tensors)) if tensors else b""
    except (TypeError, ValueError, SafetensorError, RuntimeError, KeyError) as error:
        raise StoreError(f"cannot send this: {error}") from error


def unpack(text: str, tensors: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document and tensors that `pack` packed."""
    return json.loads(text), shelves.load(tensors) if tensors else {}


def _fill(fresh: Path, document: Mapping[str, Any], tensors: Mapping[str, Tensor], kind: str) -> None:
    text = json.dumps({"format": FORMAT, "version": VERSIONS.get(kind, 1), **document}, allow_nan=False)
    written = fresh / f"{kind}.json"
    written.write_text(text, encoding="utf-8")
    if not tensors:
        return
    dense = _dense(tensors)
    try:
        save_file(dense, fresh / TENSORS)
        (fresh / TENSORS).chmod(stat.S_IMODE(written.stat().st_mode))  # safetensors makes it readable by its owner only
    except KeyError as error:
        names = [name for name, tensor in dense.items() if tensor.dtype == error.args[0]]
        raise StoreError(
            f"{', '.join(names[:3])} of dtype {error} cannot be saved: safetensors does not support it"
        ) from error


def _dense(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors requires them: on the CPU, contiguous, each with its own storage."""
    dense: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        if not _is_dense(tensor):
            raise StoreError(f"{name} cannot be saved: only dense tensors can be, and this is {_kind(tensor)}")
        own = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        storage = own.untyped_storage().data_ptr()
        dense[name] = own.clone() if storage in taken else own
        taken.add(storage)
    return dense


def _is_dense(tensor: Any) -> bool:
    return not (
        tensor.layout != torch.strided
        or tensor.is_nested
        or tensor.is_quantized
        or tensor.is_meta
        or isinstance(tensor, FakeTensor)
        or is_functorch_wrapped_tensor(tensor)
        or is_wrapper_subclass(tensor)
    )


def _kind(tensor: Any) -> str:
    if is_functorch_wrapped_tensor(tensor):
        return "one of a transform of torch.func"
    if tensor.is_meta or isinstance(tensor, FakeTensor):
        return "one without data"
    if tensor.is_nested:
        return "a nested one"
    if is_wrapper_subclass(tensor):
        return f"one of class {type(tensor).__name__}"
    return "a quantized one" if tensor.is_quantized else f"one of layout {tensor.layout}"


def read(folder: str | os.PathLike[str], *, kind: str = "run") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document and the tensors of a folder; StoreError where it cannot be read."""
    return read_any(folder, (kind,))[1:]


def read_any(folder: str | os.PathLike[str], kinds: Sequence[str]) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """The kind of a saved folder, one of `kinds`, with its document and tensors; StoreError where it cannot be read."""
    source = Path(folder)
    path_of(source)
    names = [f"{kind}.json" for kind in kinds]
    wanted = kinds[0] if len(kinds) == 1 else "result"
    try:
        *found, tensors = opened(source, (*names, TENSORS))
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{source} is not a folder; pass the one that a {wanted} was saved to") from None
    except OSError as error:
        raise StoreError(f"cannot read {source}: {reason(error)}") from None
    try:
        for kind, name, descriptor in zip(kinds, names, found, strict=True):
            if descriptor is not None:
                document = _document(source, source / name, descriptor, kind)
                return kind, document, _tensors(source / TENSORS, tensors)
        raise StoreError(f"{source} holds no {' or '.join(names)}, so it is not a saved {wanted}")
    finally:
        close(*found, tensors)


def _document(source: Path, path: Path, descriptor: int, kind: str) -> dict[str, Any]:
    try:
        with open(descriptor, "rb", closefd=False) as file:
            document = json.loads(file.read().decode("utf-8"), parse_constant=_refuse)
    except (ValueError, OSError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise StoreError(f"{path} is not a hookline document")
    newest, written = VERSIONS.get(kind, 1), document.get("version")
    if type(written) is not int or not 1 <= written <= newest:
        reads = "version 1" if newest == 1 else f"versions 1 to {newest}"
        raise StoreError(f"{source} has format version {written!r}, and this hookline reads {reads}; update hookline")
    return {name: value for name, value in document.items() if name not in ("format", "version")}


def _tensors(path: Path, descriptor: int | None) -> dict[str, Tensor]:
    if descriptor is None:
        return {}
    by_number = f"/proc/self/fd/{descriptor}"  # the opened file, even if another one has its name by now
    try:
        if os.path.exists(by_number):
            return load_file(by_number)
        with open(descriptor, "rb", closefd=False) as file:
            return shelves.load(file.read())
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise StoreError(f"{path} is damaged: {error}") from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"it holds a bare {constant}, where a number that is not finite is text")


def _is_ours(target: Path, kind: str) -> bool:
    """Whether a folder is empty, or holds only files that `write` put there."""
    for _ in range(TRIES):
        try:
            names = {*os.listdir(target)}
            if f"{kind}.json" not in names:
                return not names
            found = opened(target, (f"{kind}.json",))
        except (NotADirectoryError, StoreError):
            return False
        except FileNotFoundError:
            if os.path.lexists(target):  # another process has just put its own there
                continue
            return True
        try:
            if found[0] is not None:
                return names <= {f"{kind}.json", TENSORS} and os.read(found[0], len(BEGINNING)) == BEGINNING
        finally:
            close(*found)
    return False
