"""everywhere(): steps for every module that is called in this thread or asyncio task, within a block."""

import itertools
import weakref
from contextvars import ContextVar
from typing import Any

from torch.nn import Module

from hookline.engine.call import Call, PathsBelow, here
from hookline.engine.hook import Hook
from hookline.engine.plan import Plan, decide
from hookline.engine.run import run
from hookline.engine.torch_hooks import call


class Scope:
    """The steps of the blocks that are open in one thread or task, and how often each module was called in the
    innermost."""

    __slots__ = ("counts", "hooks", "plan", "references")

    def __init__(self, hooks: tuple[Hook, ...]) -> None:
        self.hooks = hooks
        self.plan: Plan = decide(hooks)
        self.counts: dict[int, itertools.count[int]] = {}
        self.references: dict[int, weakref.ref[Module]] = {}

    def start_counting(self, module: Module) -> "itertools.count[int]":
        """The count of a module's calls, for as long as the module lives."""
        key = id(module)
        self.references[key] = weakref.ref(module, lambda _: self.counts.pop(key, None))
        return self.counts.setdefault(key, itertools.count())


current: ContextVar[Scope | None] = ContextVar("hookline_scope", default=None)


def scoped_call(self: Module, /, *args: Any, **kwargs: Any) -> Any:
    """The module call while a block is open anywhere: with the steps of this thread's or task's blocks around it."""
    scope = current.get()
    if scope is None:
        return call(self, *args, **kwargs)

    running = here.running
    names = outer = running.names
    if names is None:
        names = running.names = PathsBelow(self)
    try:
        this = Call()
        this.module = self
        this.names = names
        this.index = next(scope.counts.get(id(self)) or scope.start_counting(self))
        this.args, this.kwargs = args, kwargs
        this.output = this.error = None
        return run(scope.plan, this, call_module)
    finally:
        running.names = outer


def call_module(this: Call) -> Any:
    """The module call below the steps."""
    return call(this.module, *this.args, **this.kwargs)
