"""Compiled modules: their calls are those of what `torch.compile` gave, which can be run alone as it is."""

from hookline.engine.compiled import is_compile_wrapper
from hookline.model.paths import walk
from hookline.model.select import Selection


def with_wrappers(selection: Selection) -> Selection:
    """The selection with what `torch.compile` gave in the place of the modules that it wraps."""
    wrappers = {path: module for path, module in walk(selection.model) if is_compile_wrapper(module)}
    modules = {path: wrappers.get(path, module) for path, module in selection}
    return Selection(selection.model, modules, selection.aliases)
