"""Compiled modules: their calls are those of what `torch.compile` gave, which can be run alone as it is."""

from torch.nn import Module

from hookline.engine.stand_in import compiled_call_of
from hookline.model.paths import walk
from hookline.model.select import Selection


def is_compiled(module: Module) -> bool:
    """Whether a module runs compiled: what `torch.compile` gave, or after `module.compile()`."""
    return _is_wrapper(module) or compiled_call_of(module) is not None


def with_wrappers(selection: Selection) -> Selection:
    """The selection with what `torch.compile` gave in the place of the modules that it wraps."""
    wrappers = {path: module for path, module in walk(selection.model) if _is_wrapper(module)}
    modules = {path: wrappers.get(path, module) for path, module in selection}
    return Selection(selection.model, modules, selection.aliases)


def _is_wrapper(module: Module) -> bool:
    return type(module).__name__ == "OptimizedModule"
