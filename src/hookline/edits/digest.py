"""Digests: a short text for a value, the same in another process as long as the value is the same."""

import functools
import hashlib
import re
from collections.abc import Mapping
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import Tensor
from torch.nn import Module

from hookline.edits.edit import Edit
from hookline.model.memory import memory_of
from hookline.model.tensors import SCALARS
from hookline.record.record import Run
from hookline.record.run_document import to_document

ADDRESS = re.compile(r" at 0[xX][0-9a-fA-F]+")  # of an object, another one in each process
COUNT_USES = ("transformers", "tokenizers")  # libraries whose objects change when they are used


def digest_of(value: Any) -> str:
    """The digest of an edit, a function or a batch.

    For a function it covers the code, the defaults and the closure, but not the globals it uses.

    >>> digest_of(lambda x: x * 2) == digest_of(lambda x: x * 2), digest_of(lambda x: x * 2) == digest_of(abs)
    (True, False)
    """
    found = hashlib.blake2b(digest_size=10)
    _add(value, found, ())
    return found.hexdigest()


def _add(value: Any, found: Any, within: tuple[int, ...]) -> None:
    """Add a value to a hash, part by part."""
    found.update(f"<{type(value).__qualname__}>".encode())
    if id(value) in within:
        return
    for part in _parts(value):
        if isinstance(part, bytes):
            found.update(part)
        else:
            _add(part, found, (*within, id(value)))


def _parts(value: Any) -> list[Any]:
    if isinstance(value, SCALARS) or value is Ellipsis:
        return [repr(value).encode()]
    if isinstance(value, bytes):
        return [b"%d:" % len(value) + value]
    if isinstance(value, Tensor):
        return [repr((value.dtype, tuple(value.shape))).encode(), _bytes_of(value)]
    if isinstance(value, Run):
        return [*to_document(value)]
    if isinstance(value, Edit):
        return [*value.held().items()]
    if isinstance(value, Mapping):
        return [*value.items()]
    if isinstance(value, tuple | list | range):
        return [*value]
    if isinstance(value, slice):
        return [value.start, value.stop, value.step]
    if isinstance(value, set | frozenset):
        return [*sorted(map(digest_of, value))]
    if isinstance(value, Module):
        return [repr(value).encode(), *value.state_dict().items()]
    return _parts_of_function(value)


def _parts_of_function(value: Any) -> list[Any]:
    if isinstance(value, CodeType):
        return [value.co_code, value.co_consts, value.co_names]
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return [value.__code__, value.__defaults__, value.__kwdefaults__, cells]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    return _parts_of_object(value)


def _parts_of_object(value: Any) -> list[Any]:
    if callable(getattr(value, "tobytes", None)):  # an array of numpy, an image
        shape = getattr(value, "shape", getattr(value, "size", None))
        return [repr((str(getattr(value, "dtype", "")), shape)).encode(), value.tobytes()]
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):  # a class, a builtin
        return [name.encode()]
    held = getattr(value, "__dict__", None)
    if isinstance(held, dict) and type(value).__module__.partition(".")[0] not in COUNT_USES:
        return [*held.items()]
    return [ADDRESS.sub("", repr(value)).encode()]


def _bytes_of(tensor: Tensor) -> bytes:
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return memory_of(plain).tobytes()
