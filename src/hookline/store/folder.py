"""A folder of plain data: one JSON document and the tensors it names. Written whole or not at all, checked when read."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hookline.errors import StoreError

FORMAT = "hookline"
VERSION = 1
DOCUMENT = "run.json"
TENSORS = "tensors.safetensors"


def write(folder: str | os.PathLike[str], document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write document and tensors to a folder, which is complete from the moment it has its name.

    A folder that hookline wrote before is replaced; StoreError where something else is there, or a tensor cannot be written.
    """
    target = Path(folder)
    if target.exists() and not _is_ours(target):
        raise StoreError(f"{target} exists and is not a saved run; give another folder, or remove it")

    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        text = json.dumps({"format": FORMAT, "version": VERSION, **document}, allow_nan=False)
        (fresh / DOCUMENT).write_text(text, encoding="utf-8")
        if tensors:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, fresh / TENSORS)
        fresh.chmod(0o755)
        _put_in_place(fresh, target)
    except (TypeError, ValueError, SafetensorError, RuntimeError) as error:
        raise StoreError(f"cannot save to {target}: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def read(folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document and the tensors of a folder; StoreError that says what is wrong with it, where something is."""
    source = Path(folder)
    if not source.is_dir():
        raise StoreError(f"{source} is not a folder; give the folder that run.save() wrote")
    try:
        document = json.loads((source / DOCUMENT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{source} holds no {DOCUMENT}, so it is not a saved run") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{source / DOCUMENT} is damaged: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise StoreError(f"{source / DOCUMENT} is not a hookline document")
    if document.get("version") != VERSION:
        raise StoreError(f"{source} has format version {document.get('version')}, and this hookline reads version {VERSION}; update it")

    if not (source / TENSORS).exists():
        return document, {}
    try:
        return document, load_file(source / TENSORS)
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{source / TENSORS} is damaged: {error}") from None


def _is_ours(target: Path) -> bool:
    if not target.is_dir():
        return False
    names = {path.name for path in target.iterdir()}
    return names <= {DOCUMENT, TENSORS} and (DOCUMENT in names or not names)


def _put_in_place(fresh: Path, target: Path) -> None:
    """Give the fresh folder its name; the one that had it is dropped only after."""
    if not target.exists():
        fresh.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(old / "run")
    try:
        fresh.rename(target)
    except OSError:
        (old / "run").rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
