"""What the engine does when `torch.compile` begins: dynamo does not look into the slot of a module, so that hooked
modules get stand-in classes, which it traces."""

import sys
import warnings
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any, TypeAlias
from weakref import WeakSet

from hookline.engine.hook import Hook
from hookline.engine.site import changing, site_of
from hookline.engine.stand_in import swap

attached: WeakSet[Hook] = WeakSet()  # one for each time hooks were added, with the modules that got them
CALLBACKS = "torch._dynamo.callback"
Callback: TypeAlias = Any


def has_compiled() -> bool:
    """Whether dynamo has made a graph in this process: it may know a module by its class."""
    convert_frame: Any = sys.modules.get("torch._dynamo.convert_frame")
    return convert_frame is not None and getattr(convert_frame, "FRAME_COUNTER", 1) > 0


def hear_of_compiling() -> None:
    """Have `swap_all` called before each graph is made, from the time when dynamo is loaded."""
    callbacks: Any = sys.modules.get(CALLBACKS)
    if callbacks is not None and hasattr(callbacks, "callback_handler"):
        _listen(callbacks.callback_handler)
    elif not any(isinstance(finder, _WhenLoaded) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenLoaded())


def swap_all(_: Any = None) -> None:
    """Give every hooked module its stand-in class."""
    with changing:
        for hook in [*attached]:
            for reference in hook.modules:
                module = reference()
                site = None if module is None else site_of(module)
                if module is not None and site is not None and not site.swapped:
                    try:
                        swap(module, site)
                    except TypeError as error:
                        kind = type(module).__qualname__
                        warnings.warn(
                            f"calls of {site.path or 'the model'} are not seen in a graph of torch.compile: its class "
                            f"{kind} cannot be subclassed ({error})",
                            stacklevel=2,
                        )


class _Callbacks(list[Callback]):
    """Dynamo's list of functions to call when it begins; `torch._dynamo.reset()` empties it, but for ours."""

    def clear(self) -> None:
        self[:] = [swap_all]


def _listen(handler: Any) -> None:
    if swap_all not in handler.start_callbacks:
        handler.start_callbacks = _Callbacks([*handler.start_callbacks, swap_all])


class _WhenLoaded(MetaPathFinder):
    """Waits until dynamo is loaded: loading it here would take seconds of everyone's time."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Nothing, but for dynamo's callbacks the module that listens to them as soon as it is there."""
        if name != CALLBACKS:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_listen(module: Any) -> None:
                execute(module)
                _listen(module.callback_handler)

            spec.loader.exec_module = execute_and_listen  # type: ignore[method-assign]
        return spec
