"""What makes two captures the same: compared field by field before a capture goes on where another stopped."""

import hashlib
import sys
import warnings
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch.nn import Module

from hookline.edits.digest import digest_of
from hookline.engine.site import site_of
from hookline.errors import CaptureError
from hookline.matching.tensors import plain
from hookline.messages import function_name
from hookline.model.memory import memory_of
from hookline.model.paths import walk
from hookline.model.sharded import is_distributed

LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "numpy", "hookline")
TORCHS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
SAYS = {
    "points": "other modules",
    "weights": "other weights",
    "settings": "other settings of modules",
    "hooks": "other hooks or edits on the model",
    "autocast": "another autocast",
    "keep": "another keep=",
    "key": "another key=",
    "call": "another call=",
    "run": "another run=",
    "loss": "another loss=",
    "rows": "other rows=",
    "calls": "another calls=",
    "dtype": "another dtype=",
    "batch": "another batch=",
    "unit": "another unit=",
    "errors": "another errors=",
    "seed": "another seed=",
    "id": "other ids (id=)",
    "examples": "another number of examples",
    "data": "other data",
    "order": "another order of the data",
    "inputs": "other inputs for the same data (a changed tokenizer?)",
}


def weights(model: Module) -> str:
    """A digest of every parameter and buffer, with names, shapes and dtypes. Of a sharded one all processes ask for the
    whole, one after another."""
    found = hashlib.sha256()
    seen: dict[int, str] = {}
    for path, module in walk(model):
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None or id(tensor) in seen:
                continue
            seen[id(tensor)] = path
            whole: Any = tensor.detach()
            whole = whole.full_tensor() if is_distributed(whole) else whole
            found.update(f"{path}.{name} {tuple(whole.shape)} {whole.dtype}\n".encode())
            values = plain(whole)
            if values is not None:
                found.update(memory_of(values.cpu().contiguous()))
    return found.hexdigest()[:20]


def hooks(model: Module) -> list[str]:
    """The hooks that may change what the model computes: PyTorch's, edits, and a user's; not those of tools that only
    look."""
    found = []
    for path, module in walk(model):
        site = site_of(module)
        own = [] if site is None else [hook.function for hook in site.hooks]
        looks = [each for each in own if not function_name(each).startswith("edit(") and is_ours(each)]
        torchs = [each for name in TORCHS for each in getattr(module, name).values()]
        found += [f"{path}: {function_name(each)}" for each in (*own, *torchs) if each not in looks]
    return found


def is_ours(function: Any) -> bool:
    """Whether a function is one of hookline's own."""
    return str(getattr(function, "__module__", "")).partition(".")[0] == "hookline"


def autocast() -> str | None:
    """The dtype of the autocast that is on, on any device."""
    on = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    return ", ".join(f"{kind} {torch.get_autocast_dtype(kind)}" for kind in on) or None


def function(value: Any) -> str | None:
    """A function in the signature: its name, and a digest of its code and of what it encloses."""
    if value is None or isinstance(value, str):
        return value
    return f"{function_name(value)} {digest_of(value)}"


def points(modules: Iterable[tuple[str, Module]]) -> dict[str, str]:
    """The class of each captured module by its path."""
    return {path: type(module).__name__ for path, module in modules}


def versions() -> dict[str, str]:
    """The releases that rows may depend on in their last bits."""
    found = {"python": ".".join(map(str, sys.version_info[:2])), "torch": torch.__version__}
    for library in LIBRARIES:
        if library not in found and library in sys.modules:
            try:
                found[library] = version(library)
            except PackageNotFoundError:
                continue
    return found


def compare(place: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """CaptureError that names the first field in which a capture on disk is another than the one that begins."""
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise CaptureError(
                f"{place} holds a capture of {SAYS.get(name, f'another {name}')}: {shown(theirs.get(name))} there, "
                f"{shown(value)} now; capture to another folder, or remove that one"
            )


def compare_versions(place: str, theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    """Warn where the capture on disk was begun with other releases."""
    other = [f"{name} {theirs[name]}" for name in theirs if name in ours and theirs[name] != ours[name]]
    if other:
        now = ", ".join(f"{name} {ours[name]}" for name in theirs if name in ours and theirs[name] != ours[name])
        warnings.warn(
            f"{place} was begun with {', '.join(other)}, and goes on with {now}: rows may differ in their last bits",
            stacklevel=3,
        )


def shown(value: Any) -> str:
    """A field's value, shortened."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
