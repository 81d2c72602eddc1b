"""What the engine does when dynamo begins to trace, for `torch.compile` or `torch.export`.

Dynamo does not look into the slot of a module, so that hooked modules get stand-in classes, which it traces.

`torch._dynamo.callback.on_compile_start` would tell of `torch.compile` alone, is emptied by `torch._dynamo.reset()`,
and runs where dynamo would compile what it calls. So the one function that traces is wrapped.
"""

import functools
import sys
import warnings
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any
from weakref import WeakSet

from torch.nn import Module

from hookline.engine.hook import Hook
from hookline.engine.site import Site, changing, site_of
from hookline.engine.stand_in import swap

attached: WeakSet[Hook] = WeakSet()  # one for each time hooks were added, with the modules that got them
CONVERT_FRAME = "torch._dynamo.convert_frame"
TRACE = "compile_frame"  # the function of that module that traces one frame


def graphs_may_know_classes() -> bool:
    """Whether dynamo has traced in this process, so that a graph may know a module by its class; or traces without
    our being told."""
    convert_frame: Any = sys.modules.get(CONVERT_FRAME)
    if convert_frame is None or _is_loading(convert_frame):
        return False
    return getattr(convert_frame, "FRAME_COUNTER", 1) > 0 or not hasattr(convert_frame, TRACE)


def hear_of_tracing() -> None:
    """Have `swap_all` called before dynamo traces, from the time when dynamo is loaded."""
    convert_frame = sys.modules.get(CONVERT_FRAME)
    if convert_frame is not None and not _is_loading(convert_frame):
        _hear(convert_frame)
    elif not any(isinstance(finder, _WhenLoaded) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenLoaded())


def swap_all() -> None:
    """Give every hooked module its stand-in class."""
    with changing:
        for hook in [*attached]:
            for reference in hook.modules:
                module = reference()
                site = None if module is None else site_of(module)
                if module is not None and site is not None and not site.swapped:
                    _swap_or_warn(module, site)


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


def _hear(convert_frame: Any) -> None:
    trace = getattr(convert_frame, TRACE, None)
    if trace is None or hasattr(trace, "hears"):
        return

    @functools.wraps(trace)
    def swap_and_trace(*args: Any, **kwargs: Any) -> Any:
        swap_all()
        return trace(*args, **kwargs)

    swap_and_trace.hears = True  # type: ignore[attr-defined]
    setattr(convert_frame, TRACE, swap_and_trace)


class _WhenLoaded(MetaPathFinder):
    """Waits until dynamo is loaded: loading it here would take seconds of everyone's time."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Nothing; but for dynamo a spec that makes it ready as soon as it is loaded."""
        if name != CONVERT_FRAME:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_hear(module: Any) -> None:
                execute(module)
                _hear(module)

            spec.loader.exec_module = execute_and_hear  # type: ignore[method-assign]
        return spec
