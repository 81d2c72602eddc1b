"""Site: what the engine keeps in a module that has hooks of ours, and the call that it makes of it.

PyTorch's call of a module looks first whether `module.__dict__["_compiled_call_impl"]` has something to call in its
place. That is where a site stands: `type(module)` is what it was, and copying, pickling and saving leave it out by
themselves.
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
SITE = "_hookline"  # where a site stands in a module whose class is swapped
PYTORCHS_CALL = Module.__call__
CALLS = (PYTORCHS_CALL, call, scoped_call)  # those that look into the slot
hooks_lock = lock()  # held while hooks are added or removed


class Site:
    """What the engine keeps in a hooked module: whose it is, the module's class and that class' call (None where it
    may do more than the forward and PyTorch's hooks), its path and the number of its calls, both as of the first
    hooks, the hooks that it has and their plan, the methods of it that are hooked, None for none, and whether the
    module's class is swapped for a stand-in. Copied or pickled it is None."""

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
        self.key: Tensor | None = None  # what stands for this module in a compiled graph

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The call of the module, from its slot."""
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
        except KeyError:  # a module without hook dicts is called as its class does it
            bare = False
        this = new_call(module, self, next(self.count), args, kwargs)
        return run(self.plan, this, module.forward if bare else module._call_impl)

    def __del__(self) -> None:
        """Whatever has taken its place in the slot, as `Module.compile()` does, is to run inside the hooks."""
        module = self.module()
        if self.hooks and not self.swapped and module is not None:
            from hookline.engine.stand_in import swap

            self.hooks = tuple(hook for hook in self.hooks if hook.active)
            if self.hooks:
                swap(module, self)

    def _called(self, module: Module | None) -> Module:
        """The module that is called, which may be another than the site's own: somebody has copied its `__dict__`,
        as `torch.nn.DataParallel` does."""
        found = sys._getframe(2).f_locals.get("self")
        if isinstance(found, Module) and found.__dict__.get(SLOT) is self:
            return found
        if module is None:
            raise RuntimeError(f"the module that was hooked as {self.path or 'the model'} is gone")
        return module

    def path_of(self, module: Module) -> str:
        """The module's path, for a Call."""
        return self.path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None


class _Probe:
    """A module as small as can be, whose slot tells how often the one in it is referred to during a call."""

    def __init__(self) -> None:
        self.slot: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.slot(*args, **kwargs) if self.slot is not None else sys.getrefcount(self)


_probe = _Probe()
_probe.slot = _Probe()
ALONE: int = _probe()  # the references to a site in its call, where no other module's `__dict__` has it


class Kind:
    """A class whose instances are hooked: itself, its call if, without hooks of PyTorch's, that is the forward and
    nothing else (None where it may be more), and whether that call looks into the slot."""

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
    """`__call__` of a stand-in: our hooks around the call of the original class, which is the forward straight where
    nothing of PyTorch's is to run around that."""
    namespace = self.__dict__
    site = namespace.get("_hookline")
    if site is None:  # gone since this method was bound
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


hooked_call.__annotations__ = {}  # as PyTorch's call has none: torch.jit.script reads them


def call_from_within(self: Module, /, *args: Any, **kwargs: Any) -> Any:
    """The call of a module whose class is swapped, by PyTorch's call that somebody has kept from before: with our
    hooks, or, where these run already, the rest of PyTorch's call."""
    site = self.__dict__.get(SITE)
    if site is not None and is_dynamo_compiling():
        return traced_call(self, site, original_class(self)._call_impl, args, kwargs)
    running = here.running.call
    if site is None or (running is not None and running.module is self):
        return self._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]
    return hooked_call(self, *args, **kwargs)


def site_of(module: Module) -> Site | None:
    """The module's own site; None where it has none, or one that came with a copy of another module's `__dict__`."""
    namespace = module.__dict__
    site = namespace.get(SITE)
    if site is None:
        site = namespace.get(SLOT)
    return site if type(site) is Site and site.module() is module else None


def put_in_slot(module: Module, site: Site) -> None:
    """Let the calls of a module go to its site."""
    with dicts_lock:  # else another thread makes a plan that knows nothing of the site
        if type(module.__dict__.get("_forward_hooks")) is HookDict:
            CompiledCallSlot().__set__(module, site)  # which drops the plan of a module that the engine serves
        else:
            module.__dict__[SLOT] = site


def no_call_half_way() -> None:
    """Wait until no other thread is inside the few instructions of PyTorch's call that read the slot twice: it would
    call None if that were emptied meanwhile.

    A thread that has just got the interpreter's lock keeps it for some milliseconds, which is enough to look at the
    others and to empty the slots.
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
    """Empty the slot of a module, unless something else stands in it."""
    if module.__dict__.get(SLOT) is site:
        del module.__dict__[SLOT]


def close(site: Site) -> None:
    """Let a site have no hooks from here on: what has come to share it runs none."""
    site.first = site.hooks = ()
    site.plan = NO_HOOKS
