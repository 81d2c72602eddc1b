"""The class that a hooked module has meanwhile: a subclass of its own class with our call, which says it is the
original.

`type(module)` is the stand-in, `module.__class__` the original (but for graphs of torch.compile, see `_class_as_told`).
What is set on the stand-in class goes to the original.
"""

import copy
import copyreg
import operator
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from types import MethodType
from typing import Any

from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.jit import _trace
from torch.nn import Module

from hookline.engine.call import Call, here
from hookline.engine.forwarding import forwarding, is_stand_in, original_class
from hookline.engine.global_hooks import process
from hookline.engine.hook import Hook
from hookline.engine.plan import NO_STEPS, Plan
from hookline.engine.run import run
from hookline.engine.tap import forget
from hookline.engine.torch_hooks import PYTORCHS_CALL_IMPL, call
from hookline.engine.traced import graphs, traced_call
from hookline.errors import AttachError

SITE = "_hookline"
PYTORCHS_CALL = Module.__call__
set_class = object.__dict__["__class__"].__set__
changing = threading.RLock()  # held while hooks are put on, taken off, or lifted for a copy


class Site:
    """What the engine keeps in a module that has hooks of ours: whose it is, the module's class and that class' call,
    its path and how many calls there were, both as of the first hooks, the hooks that it has and their plan, and the
    methods of it that are hooked, None for none. Copied or pickled it is None.

    It is also what PyTorch's call of the module finds first of all, as if it were compiled: the way to our steps for
    those who kept that call from before the module was hooked, as `torch.compile(model)` does."""

    __slots__ = (
        *("__weakref__", "call", "count", "first", "hooks", "key", "methods", "module"),
        *("original", "path", "plan"),
    )

    def __init__(
        self, module: weakref.ref[Module], kind: "Kind", path: str, hooks: tuple[Hook, ...], plan: Plan
    ) -> None:
        self.module = module
        self.path = path
        self.count = count()
        self.first = self.hooks = hooks
        self.plan = plan
        self.original = kind.original
        self.call = kind.call
        self.methods: dict[str, Any] | None = None
        self.key: Tensor | None = None  # what stands for this module in a compiled graph

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The module's call."""
        return call_from_within(self.module(), *args, **kwargs)  # type: ignore[arg-type]

    def path_of(self, module: Module) -> str:
        """The module's path, for a Call."""
        return self.path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None


class Kind:
    """A class whose instances are hooked: itself, its stand-in, its call if, without hooks of PyTorch's, that is the
    forward and nothing else (None where it may be more), and whether somebody may have kept PyTorch's call of it."""

    __slots__ = ("call", "kept", "original", "stand_in")

    def __init__(self, original: type[Module]) -> None:
        found = original.__call__
        bare = (found is PYTORCHS_CALL or found is call) and original._call_impl is PYTORCHS_CALL_IMPL
        self.original = original
        self.stand_in = stand_in(original)  # type: ignore[arg-type]
        self.call: Callable[..., Any] | None = found if bare else None
        self.kept = self.call is PYTORCHS_CALL and "torch._dynamo" in sys.modules


def hooked_call(self: Module, /, *args: Any, **kwargs: Any) -> Any:
    """`__call__` of a stand-in: our own steps around the call of the original class, which is the forward straight
    where nothing of PyTorch's is to run around that."""
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
            or _trace._trace_module_map is not None
            or namespace.get("_compiled_call_impl", site) is not site
            or "_call_impl" in namespace
        )
    except KeyError:  # a module without hook dicts is called as its class does it
        bare = False
    inner = self.forward if bare else MethodType(original.__call__, self)

    call = Call()
    call.module = self
    call.names = site
    call.index = next(site.count)
    call.args = args
    call.kwargs = kwargs
    call.instead = call.output = call.error = call._origin = None
    return run(site.plan, call, inner)


def call_from_within(self: Module, /, *args: Any, **kwargs: Any) -> Any:
    """The call of a hooked module with our steps, or, where these run already, the rest of PyTorch's call."""
    site = self.__dict__.get(SITE)
    if site is not None and is_dynamo_compiling():
        return traced_call(self, site, original_class(self)._call_impl, args, kwargs)
    running = here.running.call
    if site is None or (running is not None and running.module is self):
        return self._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]
    return hooked_call(self, *args, **kwargs)


def site_of(module: Module) -> Site | None:
    """The module's own site; None where it has none, or one that came with a copy of another module's `__dict__`."""
    site = module.__dict__.get(SITE)
    return site if site is not None and site.module() is module and is_stand_in(type(module)) else None


def swap(
    module: Module,
    reference: weakref.ref[Module],
    path: str,
    hooks: tuple[Hook, ...],
    plan: Plan,
    kinds: dict[type[Module], Kind],
) -> None:
    """Give a module its stand-in class and a site with its first hooks; the undo is `swap_back`. `kinds` gathers the
    classes met so far."""
    own = type(module)
    kind = kinds.get(own)
    if kind is None:
        kind = kinds[own] = Kind(original_class(module))
    set_class(module, kind.stand_in)
    namespace = module.__dict__
    site = namespace[SITE] = Site(reference, kind, path, hooks, plan)
    if kind.kept:
        namespace.setdefault("_compiled_call_impl", site)


def swap_back(module: Module, site: Site) -> None:
    """Give a module its own class back. What has come to share its site runs no steps from here on."""
    set_class(module, site.original)
    del module.__dict__[SITE]
    _take_entry(module, site)
    if graphs.made:
        forget(site)
    site.first = site.hooks = ()
    site.plan = NO_STEPS


def _take_entry(module: Module, site: Site) -> bool:
    """Take out the way to our steps from within PyTorch's call; whether it was there."""
    there = module.__dict__.get("_compiled_call_impl") is site
    if there:
        del module.__dict__["_compiled_call_impl"]
    return there


@lru_cache(maxsize=512)
def stand_in(original: Any) -> Any:
    """The stand-in of a class. It is made on `torch.nn.Module` and then moved below the original, so that nothing
    happens which the original does when it is subclassed (`__init_subclass__`, a metaclass that registers)."""
    body = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "__slots__": (),
        "__call__": hooked_call,
        "__class__": property(_class_as_told, _set_class),
        "__reduce_ex__": _reduce_ex,
        "__deepcopy__": _deepcopy,
    }
    if "_wrapped_call" in vars(original):  # torch.fx's GraphModule looks for it on the class itself when it recompiles
        body["_wrapped_call"] = vars(original)["_wrapped_call"]
    metaclass = forwarding(type(original))  # type: ignore[arg-type]
    try:
        made = type.__new__(metaclass, original.__name__, (Module,), dict(body))
        type.__dict__["__bases__"].__set__(made, (original,))
    except TypeError:  # its instances have slots: such a class can only be subclassed outright
        made = type.__new__(metaclass, original.__name__, (original,), body)
    return made


def _class_as_told(self: Module) -> type[Module]:
    """The class that a hooked instance says it has: the original. Dynamo takes `type(module)` for it and checks that
    whenever it calls a graph, so that once a graph was made with our steps in it, it is the stand-in."""
    return type(self) if graphs.made else original_class(self)


def _set_class(self: Module, wanted: type[Module]) -> None:
    """Another class for a hooked instance (parametrize, fully_shard and lazy modules give it one): it stays hooked, and
    keeps that class when the hooks are gone."""
    if is_stand_in(wanted) and "__call__" not in vars(wanted):
        raise AttachError(
            f"{wanted.__name__} was made of the class that a hooked module has meanwhile, since a compiled graph holds "
            "our steps; take the hooks off, give the module its class, and put them on again"
        )
    kind = Kind(wanted.__base__ if is_stand_in(wanted) else wanted)  # type: ignore[arg-type]
    set_class(self, kind.stand_in)
    site = site_of(self)
    if site is not None:
        site.original, site.call = kind.original, kind.call


@contextmanager
def _bare(module: Module) -> Iterator[None]:
    """The module as it is without hooks of ours, for as long as it is copied."""
    with changing:
        site = module.__dict__.pop(SITE, None)
        methods = () if site is None or site.methods is None else [*site.methods.values()]
        for method in methods:
            method.take_out(module)
        hooked = type(module)
        set_class(module, original_class(module))
        entered = site is not None and _take_entry(module, site)
        try:
            yield
        finally:
            set_class(module, hooked)
            if site is not None:
                module.__dict__[SITE] = site
            for method in methods:
                method.put_in(module)
            if entered:
                module.__dict__["_compiled_call_impl"] = site


def _reduce_ex(self: Module, protocol: Any) -> Any:
    with _bare(self):
        reduced = self.__reduce_ex__(protocol)
    if graphs.made and reduced[0] is copyreg.__newobj__ and len(reduced[1]) == 1:  # type: ignore[attr-defined]
        # of `__newobj__` pickle compares the class with what __class__ says, which is the stand-in now
        return operator.methodcaller("__new__", *reduced[1]), reduced[1], *reduced[2:]
    return reduced


def _deepcopy(self: Module, memo: dict[int, Any]) -> Any:
    with _bare(self):
        return copy.deepcopy(self, memo)
