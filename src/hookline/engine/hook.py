"""Hook: one step of ours and where it was put; Handle: its undo."""

import inspect
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import CodeType, TracebackType
from typing import Any, Literal, Self, TypeAlias, cast

from torch.nn import Module

from hookline.engine.call import Call
from hookline.engine.graph_values import Sees
from hookline.errors import AttachError
from hookline.messages import outside

Step: TypeAlias = Callable[[Call], Any]
Phase: TypeAlias = Literal["before", "after", "always", "ended", "backward_before", "backward"]
Compiled: TypeAlias = Literal["trace", "callback", "leave out", "outside"]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Hook:
    """One step, the phase of the call it runs in, its place in the order, the file and line that added it, what becomes
    of it in a compiled graph, what of tensors it looks at there, whether it asks for their gradients and whether the
    user was told that it does not run, the modules that it was put on and their paths, and whether it is on still: a
    removed one does not run in the backward pass of an earlier call."""

    step: Step
    phase: Phase
    order: float
    added: str
    compiled: Compiled = "trace"
    sees: Sees = "tensors"
    sees_gradients: bool = False
    told: bool = False
    modules: "list[weakref.ref[Module]]" = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    active: bool = True

    @property
    def name(self) -> str:
        """The name of the step's function, as its author would recognise it."""
        return getattr(self.step, "__qualname__", None) or type(self.step).__qualname__

    def path_of(self, module: Module, otherwise: str) -> str:
        """The path of a module under the model that the hook was added to; the other one where that is not known."""
        found = (path for path, own in zip(self.paths, self.modules, strict=False) if own() is module)
        return next(found, otherwise)

    def __str__(self) -> str:
        return f"{self.phase} step {self.name}, added at {self.added}"


class Handle:
    """The undo of something that was attached: call `remove()`, or use it as a `with` block. Twice is harmless."""

    __slots__ = ("_undo",)

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo: Callable[[], None] | None = undo

    @property
    def active(self) -> bool:
        """Whether it is still attached."""
        return self._undo is not None

    def remove(self) -> None:
        """Take out exactly what was attached, and leave the rest as it is."""
        if self._undo is not None:
            self._undo()
            self._undo = None  # where the undo fails it is still to be done

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def together(*handles: Handle) -> Handle:
    """One handle for several; the last of them is undone first."""

    def undo() -> None:
        for handle in reversed(handles):
            handle.remove()

    return Handle(undo)


def make_hooks(*, order: float = 0, compiled: Compiled = "trace", **phases: Step | None) -> tuple[Hook, ...]:
    """One Hook for each phase that has a step; AttachError where a step cannot be called or none is given.

    In a graph of `torch.compile` a step is traced, called by the graph when it runs ("callback"), or left out: with a
    warning, or, where it is only meant for what is outside of graphs, without one.
    """
    added = caller()
    for phase, step in phases.items():
        if step is not None and not callable(step):
            raise AttachError(f"{phase}= takes a function of one argument, the call, not {step!r} ({added})")

    hooks = tuple(
        Hook(step, cast(Phase, phase), order, added, compiled) for phase, step in phases.items() if step is not None
    )
    if not hooks:
        wanted = ", ".join(f"{phase}=" for phase in phases)
        raise AttachError(f"no step was given; pass at least one of {wanted} ({added})")
    return hooks


def caller() -> str:
    """file:line of the innermost frame outside this package."""
    frame, _ = outside()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def in_order(hooks: Iterable[Hook], phase: Phase) -> tuple[Hook, ...]:
    """The hooks of one phase, smaller order first, ties as they were added."""
    return tuple(sorted((hook for hook in hooks if hook.phase == phase), key=lambda hook: hook.order))


def place_of(function: Any, *, wrapped: bool = True) -> str:
    """file:line where a function, a method, or the call of an object is written; "" where that is not known. Of what
    wraps another (functools.wraps) it is where that one is written, or the wrapper with wrapped=False.

    >>> place_of(print)
    ''
    """
    with suppress(Exception):  # of an object that answers to any name
        function = getattr(function, "__func__", function)
        function = inspect.unwrap(function) if wrapped else function
        called = function if hasattr(function, "__code__") else inspect.getattr_static(type(function), "__call__", None)
        code = getattr(called, "__code__", None)
        if isinstance(code, CodeType):
            return f"{code.co_filename}:{code.co_firstlineno}"
    return ""
