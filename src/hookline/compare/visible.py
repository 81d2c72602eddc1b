"""What can be seen of compiled modules: their call from outside, and nothing in it."""

from torch.nn import Module

from hookline.engine.stand_in import compiled_call_of
from hookline.model.paths import walk
from hookline.model.select import Selection


def is_compiled(module: Module) -> bool:
    """Whether a module runs compiled: what `torch.compile` gave, or after `module.compile()`."""
    return _is_wrapper(module) or compiled_call_of(module) is not None


def seen_from_outside(selection: Selection) -> Selection:
    """The selection with what `torch.compile` gave in the place of the modules that it wraps, whose calls nobody
    sees."""
    wrappers = {path: module for path, module in walk(selection.model) if _is_wrapper(module)}
    modules = {path: wrappers.get(path, module) for path, module in selection}
    return Selection(selection.model, modules, selection.aliases)


def inside_compiled(model: Module) -> list[str]:
    """The paths of the modules in compiled ones."""
    found = []
    for path, module in walk(model):
        if is_compiled(module):
            found += [f"{path}.{below}".lstrip(".") for below, _ in walk(module) if below]
    return found


def _is_wrapper(module: Module) -> bool:
    return type(module).__name__ == "OptimizedModule"
