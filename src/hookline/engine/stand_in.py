"""The class that a hooked module has meanwhile: a subclass of its own class with our call, which says it is the
original.

`type(module)` is the stand-in, `module.__class__` the original. What is set on the stand-in class goes to the original.
"""

import copy
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import MethodType
from typing import Any

from torch.compiler import is_dynamo_compiling
from torch.jit import _trace
from torch.nn import Module

from hookline.engine.call import Call
from hookline.engine.global_hooks import process
from hookline.engine.hook import Hook
from hookline.engine.plan import NO_STEPS, Plan
from hookline.engine.run import run
from hookline.engine.torch_hooks import PYTORCHS_CALL_IMPL, call

SITE = "_hookline"
PYTORCHS_CALL = Module.__call__
set_class = object.__dict__["__class__"].__set__
changing = threading.RLock()  # held while hooks are put on, taken off, or lifted for a copy


class Site:
    """What the engine keeps in a module that has hooks of ours: whose it is, the module's class and that class' call,
    its path, its hooks and their plan, and the methods of it that are hooked. Copied or pickled it is None."""

    __slots__ = ("call", "count", "hooks", "methods", "original", "owner", "path", "plan")
    own = True

    def __init__(self, module: Module, kind: "Kind", path: str) -> None:
        self.owner = id(module)
        self.path = path
        self.count = itertools.count()
        self.hooks: tuple[Hook, ...] = ()
        self.methods: dict[str, Any] = {}
        self.plan: Plan = NO_STEPS
        self.original = kind.original
        self.call = kind.call

    def path_of(self, module: Module) -> str:
        """The module's path, for a Call."""
        return self.path

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None


class Kind:
    """A class whose instances are hooked: itself, its stand-in, and its call if, without hooks of PyTorch's, that is
    the forward and nothing else (None where it may be more)."""

    __slots__ = ("call", "original", "stand_in")

    def __init__(self, original: type[Module]) -> None:
        found = original.__call__
        bare = (found is PYTORCHS_CALL or found is call) and original._call_impl is PYTORCHS_CALL_IMPL
        self.original = original
        self.stand_in = stand_in(original)  # type: ignore[arg-type]
        self.call: Callable[..., Any] | None = found if bare else None


def hooked_call(self: Module, /, *args: Any, **kwargs: Any) -> Any:
    """`__call__` of a stand-in: our own steps around the call of the original class, which is the forward straight
    where nothing of PyTorch's is to run around that."""
    namespace = self.__dict__
    site = namespace.get("_hookline")
    if site is None or is_dynamo_compiling():  # gone since this method was bound; or traced
        return original_class(self).__call__(self, *args, **kwargs)

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
            or "_compiled_call_impl" in namespace
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


def site_of(module: Module) -> Site | None:
    """The module's own site; None where it has none, or one that came with a copy of another module's `__dict__`."""
    site = module.__dict__.get(SITE)
    return site if site is not None and site.owner == id(module) and is_stand_in(type(module)) else None


def swap(module: Module, path: str, kinds: dict[type[Module], Kind]) -> Site:
    """Give a module its stand-in class and a site; the undo is `swap_back`. `kinds` gathers the classes met so far."""
    own = type(module)
    kind = kinds.get(own)
    if kind is None:
        kind = kinds[own] = Kind(original_class(module))
    set_class(module, kind.stand_in)
    site = module.__dict__[SITE] = Site(module, kind, path)
    return site


def swap_back(module: Module, site: Site) -> None:
    """Give a module its own class back. What has come to share its site runs no steps from here on."""
    set_class(module, site.original)
    del module.__dict__[SITE]
    site.hooks, site.plan = (), NO_STEPS


def is_stand_in(kind: type) -> bool:
    """Whether a class is one that stands for another."""
    return isinstance(kind, Forwarding)


def original_class(module: Module) -> type[Module]:
    """The class that a module has, or stands to get back."""
    kind = type(module)
    return kind.__base__ if is_stand_in(kind) else kind  # type: ignore[return-value]


class Forwarding(type):
    """The metaclass of stand-ins: what is set on the class goes to the original, for all its instances and to stay."""

    def __setattr__(cls, name: str, value: Any) -> None:
        setattr(cls.__base__, name, value)

    def __delattr__(cls, name: str) -> None:
        delattr(cls.__base__, name)


@lru_cache(maxsize=64)
def _forwarding(metaclass: Any) -> Any:
    return Forwarding if metaclass is type else type("Forwarding", (Forwarding, metaclass), {})


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
        "__class__": property(original_class, _set_class),
        "__reduce_ex__": _reduce_ex,
        "__deepcopy__": _deepcopy,
    }
    if "_wrapped_call" in vars(original):  # torch.fx's GraphModule looks for it on the class itself when it recompiles
        body["_wrapped_call"] = vars(original)["_wrapped_call"]
    metaclass = _forwarding(type(original))  # type: ignore[arg-type]
    try:
        made = type.__new__(metaclass, original.__name__, (Module,), dict(body))
        type.__dict__["__bases__"].__set__(made, (original,))
    except TypeError:  # its instances have slots: such a class can only be subclassed outright
        made = type.__new__(metaclass, original.__name__, (original,), body)
    return made


def _set_class(self: Module, wanted: type[Module]) -> None:
    """Another class for a hooked instance (parametrize, fully_shard and lazy modules give it one): it stays hooked, and
    keeps that class when the hooks are gone."""
    kind = Kind(wanted)
    set_class(self, kind.stand_in)
    site = site_of(self)
    if site is not None:
        site.original, site.call = kind.original, kind.call


@contextmanager
def _bare(module: Module) -> Iterator[None]:
    """The module as it is without hooks of ours, for as long as it is copied."""
    with changing:
        site = module.__dict__.pop(SITE, None)
        methods = () if site is None else [*site.methods.values()]
        for method in methods:
            method.take_out(module)
        hooked = type(module)
        set_class(module, original_class(module))
        try:
            yield
        finally:
            set_class(module, hooked)
            if site is not None:
                module.__dict__[SITE] = site
            for method in methods:
                method.put_in(module)


def _reduce_ex(self: Module, protocol: Any) -> Any:
    with _bare(self):
        return self.__reduce_ex__(protocol)


def _deepcopy(self: Module, memo: dict[int, Any]) -> Any:
    with _bare(self):
        return copy.deepcopy(self, memo)
