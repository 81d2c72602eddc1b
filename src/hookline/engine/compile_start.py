"""Prepare hooked modules when dynamo begins to trace, for `torch.compile` or `torch.export`.

Dynamo does not look into the slot of a module, so hooked modules get stand-in classes, which it traces.

`torch._dynamo.callback.on_compile_start` would not do: it is not called for `torch.export`, is emptied by
`torch._dynamo.reset()`, and runs where dynamo would compile the callback. So the function that traces is wrapped.
"""

import functools
import re
import sys
import warnings
import weakref
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any
from weakref import WeakSet

from torch.nn import Module

from hookline.engine.hook import Hook
from hookline.engine.site import Site, hooks_lock, site_of
from hookline.engine.stand_in import keep_for_graphs, swap

attached: WeakSet[Hook] = WeakSet()  # one for each time hooks were added; its paths name the modules
CONVERT_FRAME = "torch._dynamo.convert_frame"
TRACE = "compile_frame"  # the function of that module that traces one frame


def is_known_to_graphs() -> Callable[[type], bool]:
    """A test of whether a graph may know a class, so that it would run instead of a module's own call: whether guards
    name the class."""
    convert_frame: Any = sys.modules.get(CONVERT_FRAME)
    if convert_frame is None or _is_loading(convert_frame):
        return lambda kind: False
    if not hasattr(convert_frame, TRACE) or not hasattr(convert_frame, "FRAME_COUNTER"):
        return lambda kind: True  # a PyTorch in which this is unknown
    if convert_frame.FRAME_COUNTER == 0:
        return lambda kind: False
    known = _classes_in_guards(convert_frame)
    return lambda kind: id(kind) in known


def _classes_in_guards(convert_frame: Any) -> set[int]:
    """The ids of the classes that the guards of graphs check, as the guards are printed."""
    from hookline.torch_private.compiler import graphs_of_code as entries_of

    found: set[int] = set()
    for reference in convert_frame.input_codes.seen:
        code = reference()
        for entry in entries_of(code) if code is not None else ():
            key = id(entry.guard_manager)
            known = _read.get(key)
            if known is None or known[0]() is not entry.guard_manager:
                ids = frozenset(map(int, re.findall(r"check_type_id\(.*?, (\d+)\)", str(entry.guard_manager))))
                known = _read[key] = (weakref.ref(entry.guard_manager), ids)
            found |= known[1]
    return found


_read: dict[int, tuple["weakref.ref[Any]", frozenset[int]]] = {}  # by guards, since printing them is slow


def prepare_for_tracing() -> None:
    """Call `swap_all` whenever dynamo begins to trace, once dynamo is loaded."""
    convert_frame = sys.modules.get(CONVERT_FRAME)
    if convert_frame is not None and not _is_loading(convert_frame):
        _wrap_trace(convert_frame)
    elif not any(isinstance(finder, _WhenLoaded) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenLoaded())


def swap_all() -> None:
    """Give every hooked module its stand-in class."""
    with hooks_lock:
        for hook in [*attached]:
            for module in hook.paths:
                site = site_of(module)
                if site is not None:
                    if not site.swapped:
                        _swap_or_warn(module, site)
                    keep_for_graphs(module)


def _swap_or_warn(module: Module, site: Site) -> None:
    try:
        swap(module, site)
    except TypeError as error:
        warnings.warn(
            f"calls of {site.path or 'the model'} are not seen in a graph of torch.compile: its class "
            f"{type(module).__qualname__} cannot be subclassed ({error})",
            stacklevel=2,
        )


def _is_loading(module: Any) -> bool:
    return getattr(getattr(module, "__spec__", None), "_initializing", False)


def _wrap_trace(convert_frame: Any) -> None:
    trace = getattr(convert_frame, TRACE, None)
    if trace is None or hasattr(trace, "is_wrapped"):
        return

    @functools.wraps(trace)
    def swap_and_trace(*args: Any, **kwargs: Any) -> Any:
        swap_all()
        return trace(*args, **kwargs)

    swap_and_trace.is_wrapped = True  # type: ignore[attr-defined]
    setattr(convert_frame, TRACE, swap_and_trace)


class _WhenLoaded(MetaPathFinder):
    """Waits until dynamo is loaded: importing it here would cost every user seconds."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """None, except for dynamo: a spec that wraps its function as soon as it is loaded."""
        if name != CONVERT_FRAME:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_wrap(module: Any) -> None:
                execute(module)
                _wrap_trace(module)

            spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec
