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

from torch.nn import Module

TorchHook: TypeAlias = Callable[..., Any]

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


@dataclass(frozen=True, slots=True)
class HookPlan:
    """The forward hooks that PyTorch's API put on one module: of each its id, the hook, and whether it takes kwargs.

    `plain` is the `after` hooks alone, where there are no others and none takes kwargs or is always called; else None.
    """

    before: tuple[tuple[Any, TorchHook, bool], ...]
    after: tuple[tuple[Any, TorchHook, bool], ...]
    plain: tuple[TorchHook, ...] | None

    def begun(self, last: Any) -> list[Any]:
        """The ids of the `after` hooks up to and with `last`; none when that is None."""
        ids = [hook_id for hook_id, _, _ in self.after]
        return ids[: ids.index(last) + 1] if last is not None else []


NO_HOOKS = HookPlan((), (), ())


class Wiring:
    """What the hook dicts of one module share: the plan decided from them, None from a change until the next call.

    Retired means that the dicts no longer belong to one module alone, so that no plan may be kept.
    """

    __slots__ = ("plan", "retired")

    def __init__(self) -> None:
        self.plan: HookPlan | None = None
        self.retired = False

    def retire(self) -> None:
        """Keep no plan from here on."""
        self.plan = None
        self.retired = True


class HookDict(OrderedDict[Any, Any]):
    """A hook dict that drops its module's plan when it changes. Copied or pickled it is the plain dict."""

    __slots__ = ("wiring",)

    def __init__(self, wiring: Wiring, hooks: Any = ()) -> None:
        self.wiring = wiring
        super().__init__(hooks)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return OrderedDict(self).__reduce_ex__(protocol)

    def copy(self) -> Any:
        """A plain dict of the same hooks."""
        return OrderedDict(self)

    __copy__ = copy


def _dropping_the_plan(change: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(change)
    def changed(self: HookDict, *args: Any, **kwargs: Any) -> Any:
        self.wiring.plan = None
        return change(self, *args, **kwargs)

    return changed


for _name in CHANGES:
    setattr(HookDict, _name, _dropping_the_plan(getattr(OrderedDict, _name)))


class HookDictSlot:
    """The class attribute behind which a module keeps one of its hook dicts; reading it or assigning it keeps the
    wiring right."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, module: Module | None, owner: type | None = None) -> Any:
        if module is None:
            return self
        namespace = module.__dict__
        if self.name not in namespace:
            raise AttributeError(self.name)
        if type(namespace[self.name]) is not HookDict:
            wire(module)
        return namespace[self.name]

    def __set__(self, module: Module, hooks: Any) -> None:
        namespace = module.__dict__
        if type(namespace.get(self.name)) is HookDict:
            wiring = namespace[self.name].wiring
            wiring.plan = None
            if not _is_alone(namespace, self.name):
                wiring.retire()
        if type(hooks) is HookDict and hooks.wiring not in _wirings(namespace):
            hooks.wiring.retire()
        namespace[self.name] = hooks

    def __delete__(self, module: Module) -> None:
        self.__set__(module, OrderedDict())
        del module.__dict__[self.name]


class CompiledCallSlot:
    """The class attribute behind which `Module.compile()` leaves what it made; a module that has one keeps no plan."""

    __slots__ = ()
    name = "_compiled_call_impl"

    def __get__(self, module: Module | None, owner: type | None = None) -> Any:
        return None if module is None else module.__dict__.get(self.name)

    def __set__(self, module: Module, compiled: Any) -> None:
        module.__dict__[self.name] = compiled
        for wiring in _wirings(module.__dict__):
            wiring.plan = None

    def __delete__(self, module: Module) -> None:
        del module.__dict__[self.name]


SLOTS = {CompiledCallSlot.name: CompiledCallSlot(), **{name: HookDictSlot(name) for name in HOOK_DICTS}}


def wire(module: Module) -> Wiring | None:
    """The wiring of the module's hook dicts, made where there is none; None where no plan may be kept.

    A plain dict becomes a HookDict only while nobody but the module can reach it: no other reference, no handle of a
    hook in it.
    """
    namespace = module.__dict__
    wirings = _wirings(namespace)
    if len(wirings) > 1 or any(wiring.retired for wiring in wirings):
        return None

    plain = [name for name in HOOK_DICTS if type(namespace.get(name)) is not HookDict]
    if not all(name in namespace and _is_alone(namespace, name) for name in plain):
        return None
    wiring = wirings.pop() if wirings else Wiring()
    for name in plain:
        namespace[name] = HookDict(wiring, namespace[name])
    return wiring


def _wirings(namespace: dict[str, Any]) -> set[Wiring]:
    return {hooks.wiring for name in HOOK_DICTS if type(hooks := namespace.get(name)) is HookDict}


def _is_alone(namespace: dict[str, Any], name: str) -> bool:
    """Whether a hook dict is reached from nowhere but here."""
    return (
        type(namespace[name]) in (OrderedDict, HookDict)
        and sys.getrefcount(namespace[name]) <= REFERENCES_ALONE
        and weakref.getweakrefcount(namespace[name]) == 0
    )


REFERENCES_ALONE = (lambda namespace, name: sys.getrefcount(namespace[name]))({"": OrderedDict()}, "")
