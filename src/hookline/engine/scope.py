"""everywhere(): hooks for every module that is called in this thread or asyncio task, within a block."""

import itertools
import weakref
from contextvars import ContextVar
from types import MethodType
from typing import Any

from torch.nn import Module

from hookline.engine.call import PathsBelow, here, new_call
from hookline.engine.hook import Hook
from hookline.engine.plan import Plan, decide
from hookline.engine.run import run
from hookline.engine.torch_hooks import call
from hookline.engine.unseen import begin_no_graph, trace_as_pytorchs


class Block:
    """One `everywhere` block: its hooks, whether it is open, and how often each module was called while this block was
    innermost."""

    __slots__ = ("counts", "hooks", "open", "references")
    left = 0  # how many were left so far: while it does not change, no scope contains a newly closed block

    def __init__(self, hooks: tuple[Hook, ...]) -> None:
        self.hooks = hooks
        self.open = True
        self.counts: dict[int, itertools.count[int]] = {}
        self.references: dict[int, weakref.ref[Module]] = {}

    def start_counting(self, module: Module) -> "itertools.count[int]":
        """The count of a module's calls, for as long as the module lives."""
        key = id(module)

        def forget(_: Any) -> None:
            self.counts.pop(key, None)
            self.references.pop(key, None)

        self.references[key] = weakref.ref(module, forget)
        return self.counts.setdefault(key, itertools.count())


class Scope:
    """The blocks that are open in one thread or task, outermost first, and the plan of all their hooks."""

    __slots__ = ("as_of", "blocks", "plan")

    def __init__(self, blocks: tuple[Block, ...]) -> None:
        self.blocks = blocks
        self.as_of = Block.left
        self.plan: Plan = decide(tuple(hook for block in blocks for hook in block.hooks))

    def without_closed(self) -> "Scope | None":
        """The same without the blocks that have been left, perhaps in another context; None without any."""
        left = tuple(block for block in self.blocks if block.open)
        if left != self.blocks:
            return Scope(left) if left else None
        self.as_of = Block.left
        return self


current: ContextVar[Scope | None] = ContextVar("hookline_scope", default=None)


def enter(block: Block) -> None:
    """Open a block in this thread or task."""
    scope = current.get()
    current.set(Scope((*(scope.blocks if scope else ()), block)))


def leave(block: Block) -> None:
    """Close a block in every context, also in a task that was started inside it."""
    block.open = False
    for hook in block.hooks:
        hook.active = False
    Block.left += 1
    scope = current.get()
    current.set(scope.without_closed() if scope else None)


def open_hooks() -> tuple[Hook, ...]:
    """The hooks of the blocks that are open in this thread or task."""
    scope = current.get()
    scope = scope.without_closed() if scope is not None else None
    return () if scope is None else scope.plan.hooks


def scoped_call(self: Module, /, *args: Any, **kwargs: Any) -> Any:
    """The module call while a block is open anywhere: with the hooks of the blocks of this thread or task."""
    scope = current.get()
    if scope is not None and scope.as_of != Block.left:
        scope = scope.without_closed()
    if scope is None:
        return call(self, *args, **kwargs)

    running = here.running
    outer = running.names
    names = running.names = outer or PathsBelow(self)
    try:
        block = scope.blocks[-1]
        index = next(block.counts.get(id(self)) or block.start_counting(self))
        this = new_call(self, names, index, args, kwargs)
        return run(scope.plan, this, MethodType(call, self))
    finally:
        running.names = outer


scoped_call.__annotations__ = {}  # like PyTorch's call: torch.jit.script reads them
trace_as_pytorchs(scoped_call)
begin_no_graph(globals())
