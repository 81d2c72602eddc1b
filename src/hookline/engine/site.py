"""Site: what the engine keeps in a module with hooks of ours, and the call that runs them.

PyTorch's module call first checks `module.__dict__["_compiled_call_impl"]` for something to call instead. This slot
holds the site. So `type(module)` does not change, and copying, pickling and saving leave the site out by themselves.
"""

import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.nn import Module

from hookline.engine.call import here, new_call
from hookline.engine.forwarding import original_class
from hookline.engine.global_hooks import process
from hookline.engine.hook import Hook
from hookline.engine.hook_dicts import CompiledCallSlot, HookDict, dicts_lock
from hookline.engine.locks import lock
from hookline.engine.plan import NO_HOOKS, Plan
from hookline.engine.run import run
from hookline.engine.scope import scoped_call
from hookline.engine.torch_hooks import PYTORCHS_CALL_IMPL, call
from hookline.engine.traced import traced_call
from hookline.torch_private import tracing_to_script

SLOT = CompiledCallSlot.name
SITE = "_hookline"  # holds the site of a module whose class is swapped
PYTORCHS_CALL = Module.__call__
CALLS = (PYTORCHS_CALL, call, scoped_call)  # those that check the slot
hooks_lock = lock()  # held while hooks are added or removed


class Site:
    """What the engine keeps in a hooked module. Copied or pickled it is None.

    - `module`: the module; `original`: its class; `call`: the call of that class, None if it may do more than run the
      forward and PyTorch's hooks;
    - `path`, `count`: the module's path, and the count of its calls, both as of the hooks in `first`;
    - `hooks`, `plan`: all hooks, and their plan;
    - `methods`: the hooked methods, None without any;
    - `swapped`: whether the module's class is replaced by a stand-in;
    - `key`: the tensor that identifies the module in a compiled graph.
    """

    __slots__ = (
        *("__weakref__", "call", "count", "first", "hooks", "key", "methods", "module"),
        *("original", "path", "plan", "swapped"),
    )

    def __init__(self, module: weakref.ref[Module], kind: "Kind", path: str, hooks: tuple[Hook, ...], plan: Plan):
        self.module = module
        self.path = path
        self.count = itertools.count()
        self.first = self.hooks = hooks
        self.plan = plan
        self.original = kind.original
        self.call = kind.call
        self.swapped = False
        self.methods: dict[str, Any] | None = None
        self.key: Tensor | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The call of the module, through its slot."""
        module = self.module()
        if self.swapped:
            return call_from_within(module, *args, **kwargs)  # type: ignore[arg-type]
        if module is None or sys.getrefcount(self) > ALONE or module.__dict__.get(SLOT) is not self:
            module = self._called(module)
        namespace = module.__dict__
        try:
            bare = not (
                type(module) is not self.original
                or self.call is None
                or namespace["_forward_hooks"]
                or namespace["_forward_pre_hooks"]
                or namespace["_backward_hooks"]
                or namespace["_backward_pre_hooks"]
                or process["_global_forward_hooks"]
                or process["_global_forward_pre_hooks"]
                or process["_global_backward_hooks"]
                or process["_global_backward_pre_hooks"]
                or tracing_to_script._trace_module_map is not None
                or "_call_impl" in namespace
            )
        except KeyError:  # a module without hook dicts: its class decides how it is called
            bare = False
        this = new_call(module, self, next(self.count), args, kwargs)
        return run(self.plan, this, module.forward if bare else module._call_impl)

    def __del__(self) -> None:
        """Swap the class if something replaced the site in the slot, as `Module.compile()` does, so that hooks run."""
        module = self.module()
        if self.hooks and not self.swapped and module is not None:
            from hookline.engine.stand_in import swap

            self.hooks = tuple(hook for hook in self.hooks if hook.active)
            if self.hooks:
                swap(module, self)

    def _called(self, module: Module | None) -> Module:
        """The module that is called. It is not the site's own if its `__dict__` was copied from there, as
        `torch.nn.DataParallel` does."""
        found = sys._getframe(2).f_locals.get("self")
        if isinstance(found, Module) and found.__dict__.get(SLOT) is self:
            return found
        if module is None:
            raise RuntimeError(f"the module that was hooked as {self.path or 'the model'} no longer exists")
        return module

    def path_of(self, module: Module) -> str:
        """The path of the module's calls."""
        return self.path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None


class _Probe:
    """A minimal module with a slot, to measure how many references there are to the object in the slot in a call."""

    def __init__(self) -> None:
        self.slot: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.slot(*args, **kwargs) if self.slot is not None else sys.getrefcount(self)


_probe = _Probe()
_probe.slot = _Probe()
ALONE: int = _probe()  # the references to a site in its call if no other module's `__dict__` has it


class Kind:
    """A class with hooked instances.

    - `original`: the class;
    - `call`: its call, None if that may do more than run the forward and PyTorch's hooks;
    - `has_slot`: whether that call checks the slot.
    """

    __slots__ = ("call", "has_slot", "original")

    def __init__(self, original: type[Module]) -> None:
        found = original.__call__
        bare = (found is PYTORCHS_CALL or found is call) and original._call_impl is PYTORCHS_CALL_IMPL
        self.original = original
        self.call: Callable[..., Any] | None = found if bare else None
        self.has_slot = found in CALLS and _has_plain_slot(original)


def _has_plain_slot(original: type[Module]) -> bool:
    found = next((vars(kind)[SLOT] for kind in original.__mro__ if SLOT in vars(kind)), None)
    return found is None or isinstance(found, CompiledCallSlot)


def hooked_call(self: Module, /, *args: Any, **kwargs: Any) -> Any:
    """`__call__` of a stand-in: our hooks around the call of the original class, or around the forward alone if no
    hooks of PyTorch's are to run."""
    namespace = self.__dict__
    site = namespace.get("_hookline")
    if site is None:  # removed since this method was bound
        return original_class(self).__call__(self, *args, **kwargs)
    if is_dynamo_compiling():
        original = original_class(self)
        inner = original._call_impl if original.__call__ is PYTORCHS_CALL else original.__call__
        return traced_call(self, site, inner, args, kwargs)

    original = site.original
    try:
        bare = not (
            original.__call__ is not site.call
            or namespace["_forward_hooks"]
            or namespace["_forward_pre_hooks"]
            or namespace["_backward_hooks"]
            or namespace["_backward_pre_hooks"]
            or process["_global_forward_hooks"]
            or process["_global_forward_pre_hooks"]
            or process["_global_backward_hooks"]
            or process["_global_backward_pre_hooks"]
            or tracing_to_script._trace_module_map is not None
            or namespace.get("_compiled_call_impl", site) is not site
            or "_call_impl" in namespace
        )
    except KeyError:
        bare = False

    this = new_call(self, site, next(site.count), args, kwargs)
    return run(site.plan, this, self.forward if bare else MethodType(original.__call__, self))


hooked_call.__annotations__ = {}  # like PyTorch's call: torch.jit.script reads them


def call_from_within(self: Module, /, *args: Any, **kwargs: Any) -> Any:
    """The call of a module with a swapped class, through PyTorch's call that other code stored before: with our hooks,
    or, if they are running already, the rest of PyTorch's call."""
    site = self.__dict__.get(SITE)
    if site is not None and is_dynamo_compiling():
        return traced_call(self, site, original_class(self)._call_impl, args, kwargs)
    running = here.running.call
    if site is None or (running is not None and running.module is self):
        return self._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]
    return hooked_call(self, *args, **kwargs)


def site_of(module: Module) -> Site | None:
    """The module's own site; None without one, or for one that was copied with another module's `__dict__`."""
    namespace = module.__dict__
    site = namespace.get(SITE)
    if site is None:
        site = namespace.get(SLOT)
    return site if type(site) is Site and site.module() is module else None


def put_in_slot(module: Module, site: Site) -> None:
    """Route the calls of a module to its site."""
    with dicts_lock:  # else another thread could make a plan that ignores the site
        if type(module.__dict__.get("_forward_hooks")) is HookDict:
            CompiledCallSlot().__set__(module, site)  # which drops the plan of PyTorch's hooks
        else:
            module.__dict__[SLOT] = site


def no_call_half_way() -> None:
    """Wait until no other thread is between the two reads of the slot in PyTorch's call: it would call None if the
    slot were emptied meanwhile.

    A thread that has just acquired the interpreter lock keeps it for some milliseconds, which is enough to check the
    other threads and to empty the slots.
    """
    for _ in range(1000):
        if len(sys._current_frames()) == 1:
            return
        time.sleep(0)
        mine = threading.get_ident()
        if not any(frame.f_code is READING for thread, frame in sys._current_frames().items() if thread != mine):
            return


READING = getattr(Module, "_wrapped_call_impl", PYTORCHS_CALL).__code__


def take_from_slot(module: Module, site: Site) -> None:
    """Empty the slot of a module, unless it holds something else."""
    if module.__dict__.get(SLOT) is site:
        del module.__dict__[SLOT]


def close(site: Site) -> None:
    """Remove all hooks from a site: copies of the module that share it run none from now on."""
    site.first = site.hooks = ()
    site.plan = NO_HOOKS
