"""PyTorch's hook dicts, made able to tell that they changed.

A `HookDict` stands in a module where PyTorch keeps an OrderedDict. The seven of one module share a `Wiring`, which
holds the plan decided from them; any change to one of them drops it. A class whose modules are served has a
`HookDictSlot` for each of the seven names, so that assigning a whole new dict is noticed too.
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
dicts_lock = lock()  # held while a dict changes, is replaced, or a plan is made of it


@dataclass(frozen=True, slots=True)
class HookPlan:
    """The hooks that PyTorch's API put on one module and on all, global ones first: of each forward hook its id, the
    hook, and whether it takes kwargs.

    `run(module, args, kwargs, plan, wiring)` is the call; None where all hooks are `plain` forward hooks, which take no
    kwargs and are not always called: the call is then the forward and these.
    """

    before: tuple[PlannedHook, ...]
    after: tuple[PlannedHook, ...]
    plain: tuple[TorchHook, ...]
    run: Callable[..., Any] | None

    def begun(self, last: Any) -> list[Any]:
        """The ids of the `after` hooks up to and with `last`; none when that is None."""
        ids = [hook_id for hook_id, _, _ in self.after]
        return ids[: ids.index(last) + 1] if last is not None else []


class Wiring:
    """What the hook dicts of one module share: the plan decided from them, None from a change until the next call.

    `open` names the dicts that were replaced by assigning the attribute, and are to become HookDicts. Retired means
    that the dicts may no longer belong to one module alone, so that no plan is kept.
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
    """Forget what was decided of any module: from here on its class may not notice that a dict is replaced."""
    with dicts_lock:
        for wiring in every_wiring:
            wiring.plan = None


class HookDict(OrderedDict[Any, Any]):
    """A hook dict that drops its module's plan when it changes. Copied, merged or pickled it is the plain dict."""

    __slots__ = ("wiring",)

    def __init__(self, wiring: Any = (), hooks: Any = ()) -> None:
        if not isinstance(wiring, Wiring):  # made of this type by somebody: `type(module._forward_hooks)()`
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
    """The class of slots, whose `__set__` and `__delete__` Python finds and `hasattr` does not: dynamo would trace them
    where code that it compiles makes a module. It keeps the plain attribute instead, and sets it when the graph has
    run."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__set__", "__delete__"):
            raise AttributeError(name)
        return super().__getattribute__(name)


class HookDictSlot(metaclass=_UnseenByDynamo):
    """The class attribute behind which a module keeps one of its hook dicts; it keeps the wiring right."""

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
    """The class attribute behind which `Module.compile()` leaves what it made; a module that has one keeps no plan."""

    __slots__ = ()
    name = "_compiled_call_impl"

    @unseen
    def __get__(self, module: Module | None, owner: type | None = None) -> Any:
        return None if module is None else module.__dict__.get(self.name)

    @unseen
    def __set__(self, module: Module, compiled: Any) -> None:
        before = module.__dict__.get(self.name)  # dropped after the lock: what it does then may take others
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
    """Whether trying is worth the time: no handle from before the engine refers to the module's hooks."""
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
    """The wiring of the module's hook dicts, made where there is none; None where no plan may be kept.

    A plain dict becomes a HookDict only while nobody but the module can reach it: no other reference, no handle of a
    hook in it.
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
                wiring.retire()  # a dict came here unnoticed: others of this wiring may be another module's as well
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
    """Whether a hook dict is reached from nowhere but here."""
    return (
        type(namespace[name]) in (OrderedDict, HookDict)
        and sys.getrefcount(namespace[name]) <= REFERENCES_ALONE
        and weakref.getweakrefcount(namespace[name]) == 0
    )


# The references to a value that only one dict holds, as a function that is passed the dict sees it. It is measured,
# since each Python counts them differently. If it were too high, a dict that somebody else refers to would be replaced,
# and the hooks that they then add would never run.
REFERENCES_ALONE = (lambda namespace, name: sys.getrefcount(namespace[name]))({"": OrderedDict()}, "")
