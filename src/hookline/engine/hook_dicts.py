"""Notice changes of PyTorch's hook dicts.

A `HookDict` replaces an OrderedDict that PyTorch keeps in a module. The seven of one module share a `Wiring`, which
holds the plan decided from them; any change to one of them drops it. A class that uses this engine's call has a
`HookDictSlot` for each of the seven names, so that assigning a new dict is noticed too.
"""

import functools
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch.compiler import is_dynamo_compiling
from torch.nn import Module

from hookline.engine.locks import lock
from hookline.engine.unseen import unseen

TorchHook: TypeAlias = Callable[..., Any]
PlannedHook: TypeAlias = tuple[Any, TorchHook, bool]

HOOK_DICTS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)
CHANGES = ("__setitem__", "__delitem__", "__ior__", "clear", "move_to_end", "pop", "popitem", "setdefault", "update")
dicts_lock = lock()  # held while a dict changes, is replaced, or a plan is made from it


@dataclass(frozen=True, slots=True)
class HookPlan:
    """The hooks of PyTorch's API on one module, global ones first: for each forward hook its id, the hook, and whether
    it takes kwargs.

    `run(module, args, kwargs, plan, wiring)` is the call. It is None if all hooks are `plain` forward hooks, which take
    no kwargs and are not `always_call`: the call is then the forward followed by these.
    """

    before: tuple[PlannedHook, ...]
    after: tuple[PlannedHook, ...]
    plain: tuple[TorchHook, ...]
    run: Callable[..., Any] | None

    def begun(self, last: Any) -> list[Any]:
        """The ids of the `after` hooks up to and including `last`; empty if `last` is None."""
        ids = [hook_id for hook_id, _, _ in self.after]
        return ids[: ids.index(last) + 1] if last is not None else []


class Wiring:
    """What the hook dicts of one module share: the plan decided from them, None from a change until the next call.

    - `owner`: returns the module;
    - `open`: the names of dicts that were replaced by assigning the attribute, and are not HookDicts yet;
    - `retired`: whether the dicts may belong to several modules, so that no plan is kept.
    """

    __slots__ = ("__weakref__", "open", "owner", "plan", "retired")

    def __init__(self, module: Module | None) -> None:
        self.owner: Callable[[], Module | None] = (lambda: None) if module is None else weakref.ref(module)
        self.plan: HookPlan | None = None
        self.open: set[str] = set()
        self.retired = module is None
        every_wiring.add(self)

    def retire(self) -> None:
        """Keep no plan from here on."""
        self.plan = None
        self.retired = True


every_wiring: weakref.WeakSet[Wiring] = weakref.WeakSet()


@unseen
def drop_every_plan() -> None:
    """Drop the plans of all modules: from now on their classes may not notice that a dict is replaced."""
    with dicts_lock:
        for wiring in every_wiring:
            wiring.plan = None


class HookDict(OrderedDict[Any, Any]):
    """A hook dict that drops its module's plan when it changes. Copying, merging or pickling it gives a plain dict."""

    __slots__ = ("wiring",)

    def __init__(self, wiring: Any = (), hooks: Any = ()) -> None:
        if not isinstance(wiring, Wiring):  # other code calls `type(module._forward_hooks)()`
            wiring, hooks = Wiring(None), wiring
        self.wiring = wiring
        super().__init__(hooks)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return OrderedDict(self).__reduce_ex__(protocol)

    def copy(self) -> Any:
        """A plain dict of the same hooks."""
        return OrderedDict(self)

    __copy__ = copy

    def __or__(self, other: Any) -> Any:
        return OrderedDict(self) | other

    def __ror__(self, other: Any) -> Any:
        return other | OrderedDict(self)


def _dropping_the_plan(change: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(change)
    @unseen
    def changed(self: HookDict, *args: Any, **kwargs: Any) -> Any:
        with dicts_lock:
            try:
                return change(self, *args, **kwargs)
            finally:
                self.wiring.plan = None

    return changed


for _name in CHANGES:
    setattr(HookDict, _name, _dropping_the_plan(getattr(OrderedDict, _name)))


class _UnseenByDynamo(type):
    """The metaclass of slots. Python finds their `__set__` and `__delete__`, `hasattr` does not. Otherwise dynamo would
    trace them where compiled code makes a module. So it keeps a plain attribute and sets it after the graph has run."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__set__", "__delete__"):
            raise AttributeError(name)
        return super().__getattribute__(name)


class HookDictSlot(metaclass=_UnseenByDynamo):
    """The class attribute for one of a module's hook dicts; it keeps the wiring correct."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    @unseen
    def __get__(self, module: Module | None, owner: type | None = None) -> Any:
        if module is None:
            return self
        namespace = module.__dict__
        if self.name not in namespace:
            raise AttributeError(self.name)
        if type(namespace[self.name]) is not HookDict and not is_dynamo_compiling() and can_be_wired(module):
            wire(module)
        return namespace[self.name]

    @unseen
    def __set__(self, module: Module, hooks: Any) -> None:
        namespace = module.__dict__
        with dicts_lock:
            if type(namespace.get(self.name)) is HookDict:
                wiring = namespace[self.name].wiring
                wiring.plan = None
                wiring.open.add(self.name)
                if not is_alone(namespace, self.name):
                    wiring.retire()
            if type(hooks) is HookDict and hooks.wiring not in _wirings(namespace):
                hooks.wiring.retire()
            namespace[self.name] = hooks

    @unseen
    def __delete__(self, module: Module) -> None:
        self.__set__(module, OrderedDict())
        del module.__dict__[self.name]


class CompiledCallSlot(metaclass=_UnseenByDynamo):
    """The class attribute for the result of `Module.compile()`; a module that has one keeps no plan."""

    __slots__ = ()
    name = "_compiled_call_impl"

    @unseen
    def __get__(self, module: Module | None, owner: type | None = None) -> Any:
        return None if module is None else module.__dict__.get(self.name)

    @unseen
    def __set__(self, module: Module, compiled: Any) -> None:
        before = module.__dict__.get(self.name)  # freed after the lock is released: its `__del__` may take other locks
        with dicts_lock:
            module.__dict__[self.name] = compiled
            for wiring in _wirings(module.__dict__):
                wiring.plan = None
                if wiring.owner() is not module:
                    wiring.retire()
        del before

    @unseen
    def __delete__(self, module: Module) -> None:
        del module.__dict__[self.name]


SLOTS = {CompiledCallSlot.name: CompiledCallSlot(), **{name: HookDictSlot(name) for name in HOOK_DICTS}}


@unseen
def can_be_wired(module: Module) -> bool:
    """Whether it is worth trying to wire a module: no handle older than the engine refers to its hooks."""
    get = module.__dict__.get
    forward = get("_forward_hooks")
    if type(forward) is HookDict:
        return not forward.wiring.retired
    return not (
        weakref.getweakrefcount(forward)
        or weakref.getweakrefcount(get("_forward_pre_hooks"))
        or weakref.getweakrefcount(get("_backward_hooks"))
        or weakref.getweakrefcount(get("_backward_pre_hooks"))
    )


@unseen
def wire(module: Module) -> Wiring | None:
    """The wiring of the module's hook dicts, made if there is none; None if no plan may be kept.

    A plain dict becomes a HookDict only while nothing but the module refers to it, not even the handle of a hook.
    """
    namespace = module.__dict__
    with dicts_lock:
        wirings = _wirings(namespace)
        for wiring in wirings:
            if wiring.owner() is not module:
                wiring.retire()  # the dicts came with a shallow copy of another module
        if len(wirings) > 1 or any(wiring.retired for wiring in wirings):
            return None

        plain = [name for name in HOOK_DICTS if type(namespace.get(name)) is not HookDict]
        if any(not wiring.open.issuperset(plain) for wiring in wirings):
            for wiring in wirings:
                wiring.retire()  # a dict was replaced unnoticed: others of this wiring may also be another module's
            return None
        if not all(name in namespace and is_alone(namespace, name) for name in plain):
            return None

        wiring = wirings.pop() if wirings else Wiring(module)
        for name in plain:
            namespace[name] = HookDict(wiring, namespace[name])
        wiring.open.clear()
        return wiring


def _wirings(namespace: dict[str, Any]) -> set[Wiring]:
    return {namespace[name].wiring for name in HOOK_DICTS if type(namespace.get(name)) is HookDict}


def is_alone(namespace: dict[str, Any], name: str) -> bool:
    """Whether nothing but this namespace refers to a hook dict."""
    return (
        type(namespace[name]) in (OrderedDict, HookDict)
        and sys.getrefcount(namespace[name]) <= REFERENCES_ALONE
        and weakref.getweakrefcount(namespace[name]) == 0
    )


# The number of references to a value that only one dict holds, seen from a function that receives the dict. It is
# measured, since it depends on the Python version. If it were too high, a dict that something else refers to would be
# replaced, and hooks added to the old dict would never run.
REFERENCES_ALONE = (lambda namespace, name: sys.getrefcount(namespace[name]))({"": OrderedDict()}, "")
