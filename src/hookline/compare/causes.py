"""Why the outputs of two modules differ: by their modes, dtypes, attributes, classes and weights."""

import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from hookline.compare.difference import Cause, Weight
from hookline.engine.forwarding import original_class
from hookline.matching.tensors import compare
from hookline.messages import dtype_name, function_name
from hookline.model.paths import walk
from hookline.model.tensors import SCALARS

PLAIN = (*SCALARS, torch.dtype)
MOST = 5  # of a kind that are named one by one


def module_causes(a: Module, b: Module, *, called: Iterable[str] = ()) -> list[Cause]:
    """What differs in two modules besides weights: mode, dtype, attributes and class. Modules inside that nobody calls
    count too, such as a projection of which an attention only uses the weight; `called` are the paths below `a` that
    are called, and are compared on their own.

    >>> from torch import nn
    >>> [str(cause) for cause in module_causes(nn.LayerNorm(4, eps=1e-12), nn.LayerNorm(4))]
    ['eps 1e-12 vs 1e-05']
    """
    ours, theirs, left = dict(walk(a)), dict(walk(b)), {*called}
    found: list[Cause] = []
    for path, module in ours.items():
        if path in theirs and path not in left:
            found += _of_modules(module, theirs[path], path)
    return found


def _of_modules(a: Module, b: Module, path: str) -> Iterator[Cause]:
    if a is b:
        return
    name, label = (f"{path}.", f"{path} ") if path else ("", "")
    if a.training != b.training:
        yield Cause("mode", f"{label}{modes_text(a.training, b.training)}")
    for attribute, text in different_attributes(a, b):
        yield Cause("attribute", f"{name}{attribute} {text}")
    dtypes = [_dtype(module) for module in (a, b)]
    if all(dtypes) and dtypes[0] != dtypes[1]:
        yield Cause("dtype", f"{label}dtype {dtypes[0]} vs {dtypes[1]}")
    classes = class_names(original_class(a), original_class(b))
    if classes[0] != classes[1] and "OptimizedModule" not in classes:
        yield Cause("class", f"{label}class {classes[0]} vs {classes[1]}")


def modes_text(one: bool, other: bool) -> str:
    """The modes of two modules, from their `training`."""
    modes = ["train" if training else "eval" for training in (one, other)]
    return f"in {modes[0]} mode vs {modes[1]} mode"


def model_name(model: Module) -> str:
    """The class of a model, as it is called in a comparison."""
    inner = getattr(model, "_orig_mod", None)
    return f"compiled {type(inner).__name__}" if isinstance(inner, Module) else type(model).__name__


def class_names(a: type, b: type) -> tuple[str, str]:
    """The names of two classes; if they share a name, with the modules they are from, as `torch.nn.Linear`."""
    renamed = any(kind.__qualname__.rpartition(".")[2] != kind.__name__ for kind in (a, b))  # to look like the other
    if a.__name__ != b.__name__ or a is b or renamed:
        return a.__name__, b.__name__
    return _whole_name(a), _whole_name(b)


def _whole_name(kind: type) -> str:
    """A class by the topmost package that exports it."""
    parts = kind.__module__.split(".")
    holders = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
    exporting = (name for name in holders if getattr(sys.modules.get(name), kind.__name__, None) is kind)
    return f"{next(exporting, kind.__module__)}.{kind.__qualname__}"


def different_attributes(a: Module, b: Module) -> Iterator[tuple[str, str]]:
    """The attributes of both modules that differ, as (name, how): numbers, texts, functions, tensors, and entries of
    a configuration."""
    ours, theirs = vars(a), vars(b)
    for name in ours:
        if name.startswith("_") or name == "training" or name not in theirs:
            continue
        yield from _different(name, ours[name], theirs[name])


def _different(name: str, one: Any, other: Any) -> Iterator[tuple[str, str]]:
    if one is other:
        return
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        found = compare(one, other)
        if found.differs:
            yield name, f"differs: {found}"
        return
    if hasattr(one, "to_dict") and hasattr(other, "to_dict"):
        yield from _different_entries(name, one.to_dict(), other.to_dict())
        return
    shown = _shown(one), _shown(other)
    if None not in shown and shown[0] != shown[1]:
        yield name, " vs ".join(str(each).partition("\0")[0] for each in shown)


def _different_entries(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    count = 0
    for key in one:
        plain = not key.startswith("_") and isinstance(one[key], PLAIN) and isinstance(other.get(key), PLAIN)
        if plain and one[key] != other.get(key) and count < MOST:
            count += 1
            yield f"{name}.{key}", f"{one[key]!r} vs {other.get(key)!r}"


def _shown(value: Any) -> str | None:
    """A plain value or a function as text to compare; None for anything else. The part after a zero byte is only for
    comparing."""
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, tuple | list) and all(isinstance(part, PLAIN) for part in value):
        return repr(tuple(value))
    if isinstance(value, functools.partial):
        return f"{_shown(value.func)} with {value.keywords}"
    if callable(value) and not isinstance(value, Module | type):
        code = getattr(value, "__code__", None)
        name = function_name(value)
        return f"{name}\0{code.co_code.hex()}{code.co_consts}{code.co_names}" if code else name
    return None


def _dtype(module: Module) -> str:
    own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    return ", ".join(dict.fromkeys(dtype_name(t.dtype) for _, t in own if t.is_floating_point()))


def weight_causes(weights: Iterable[Weight], path: str, *, called: Iterable[str] = ()) -> list[Cause]:
    """The weights of a module that differ, as causes: its own, and those of modules inside that nobody calls."""
    others = [other for other in called if other]
    mine = [weight for weight in weights if _belongs((weight.name_a or weight.name_b or ""), path, others)]
    found = [Cause(f"{weight.kind.replace('parameter', 'weight')}s", _short(weight, path)) for weight in mine[:MOST]]
    if len(mine) > MOST:
        found.append(Cause("weights", f"and {len(mine) - MOST} more weights differ"))
    return found


def _belongs(name: str, path: str, called: list[str]) -> bool:
    below = name.startswith(f"{path}.") if path else True
    deeper = (other for other in called if other != path and other.startswith(f"{path}." if path else ""))
    return below and not any(name.startswith(f"{other}.") for other in deeper)


def _short(weight: Weight, path: str) -> str:
    return str(weight).removeprefix(f"{path}." if path else "")
