"""everywhere(): steps for every module that is called in this thread or asyncio task, within a block."""

import itertools
import weakref
from contextvars import ContextVar
from typing import Any

from torch.nn import Module

from hookline.engine.call import Call, here
from hookline.engine.hook import Hook
from hookline.engine.plan import Plan, decide
from hookline.engine.run import run
from hookline.engine.torch_hooks import call
from hookline.model.paths import paths


class Scope:
    """The steps of the blocks that are open in one thread or task, and how often each module was called in the innermost."""

    __slots__ = ("counts", "hooks", "plan")

    def __init__(self, hooks: tuple[Hook, ...]) -> None:
        self.hooks = hooks
        self.plan: Plan = decide(hooks)
        self.counts: weakref.WeakKeyDictionary[Module, itertools.count[int]] = weakref.WeakKeyDictionary()


current: ContextVar[Scope | None] = ContextVar("hookline_scope", default=None)


def scoped_call(self: Module, /, *args: Any, **kwargs: Any) -> Any:
    """The module call while a block is open anywhere: with the steps of this thread's or task's blocks around it, if it has any."""
    scope = current.get()
    if scope is None:
        return call(self, *args, **kwargs)

    running = here.running
    outermost = running.names is None
    if running.names is None:
        running.names = {member: own[0] for member, own in paths(self).items()}
    try:
        this = Call()
        this.module = self
        this.path = running.names.get(self, f"<{type(self).__name__}>")
        this.index = next(scope.counts.setdefault(self, itertools.count()))
        this.args, this.kwargs = args, kwargs
        this.output = this.error = None
        return run(scope.plan, this, call_module)
    finally:
        if outermost:
            running.names = None


def call_module(this: Call) -> Any:
    """The module call below the steps."""
    return call(this.module, *this.args, **this.kwargs)
