"""Whether a module runs compiled, and a block in which it does not."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import Module

from hookline.engine.site import Site
from hookline.messages import few, outside
from hookline.model.paths import walk


def compiled_call_of(module: Module) -> Any:
    """What `Module.compile()` left in a module; None if it was not called."""
    found = module.__dict__.get("_compiled_call_impl")
    return None if type(found) is Site else found


def is_compiled(module: Module) -> bool:
    """Whether a module runs compiled: returned by `torch.compile`, after `module.compile()`, or with a forward that
    `torch.compile` returned."""
    return is_compile_wrapper(module) or compiled_call_of(module) is not None or is_compiled_function(module.forward)


def is_compiled_function(function: Any) -> bool:
    """Whether a function or method is the wrapper that `torch.compile` returned."""
    return hasattr(function, "_torchdynamo_orig_callable") and not hasattr(function, "_torchdynamo_disable")


def is_compile_wrapper(module: Module) -> bool:
    """Whether a module is the wrapper that `torch.compile` returned."""
    return type(module).__name__ == "OptimizedModule"


@contextmanager
def uncompiled(model: Module, why: str) -> Iterator[None]:
    """A block in which nothing is compiled, neither now nor for later; a warning with the reason names the parts of
    the model that would be. (Otherwise a mode such as the one that counts FLOPs would keep dynamo from ever running
    that graph again.)"""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    parts = {path or "the model": None for path, module in walk(model) if is_compiled(module)}
    if parts:
        told = f"{few([*parts])} {'is' if len(parts) == 1 else 'are'} compiled: {why}"
        warnings.warn(told, stacklevel=outside()[1])
    with torch.compiler.set_stance("force_eager"):
        yield
