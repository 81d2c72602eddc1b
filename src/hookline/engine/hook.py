"""Hook: a function that runs in module calls, and where it was added; Handle: the undo."""

import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import CodeType, TracebackType
from typing import Any, Literal, Self, TypeAlias, cast

from torch.compiler import is_dynamo_compiling
from torch.nn import Module

from hookline.engine.call import Call, here
from hookline.engine.graph_values import Sees
from hookline.errors import ArgumentError, ArgumentTypeError
from hookline.messages import outside
from hookline.model.paths import PathTable

HookFunction: TypeAlias = Callable[[Call], Any]  # what it returns is ignored
Phase: TypeAlias = Literal["before", "after", "always", "ended", "backward_before", "backward"]
Compiled: TypeAlias = Literal["trace", "callback", "leave out", "outside"]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Hook:
    """One hook: a function of a user or a tool that runs in one phase of module calls.

    - `order`: its place among the hooks of a phase, smaller first; `added`: the file and line that added it;
    - `compiled`: what happens to it in a compiled graph; `sees`: what it reads of tensors there; `sees_gradients`:
      whether it reads gradients there; `warned`: whether the user was warned that it does not run there;
    - `paths`: the modules it was added to, with their paths in the model that it was added to;
    - `active`: False once it is removed, so that it does not run in the backward pass of an earlier call.
    """

    function: HookFunction
    phase: Phase
    order: float
    added: str
    compiled: Compiled = "trace"
    sees: Sees = "tensors"
    sees_gradients: bool = False
    warned: bool = False
    paths: PathTable = field(default_factory=lambda: PathTable(()))
    active: bool = True

    @property
    def name(self) -> str:
        """The qualified name of the function."""
        return getattr(self.function, "__qualname__", None) or type(self.function).__qualname__

    def seen_from(self, module: Module, path: str) -> HookFunction:
        """The function as calls of a module run it. While it runs, `call.path` is the path in the model that this hook
        was added to; `path` is the module's own, in the first model that was hooked."""
        own = self.paths.path_of(module, path)
        return self.function if own == path else SeenFrom(self, own)

    def __str__(self) -> str:
        return f"{self.phase} hook {self.name}, added at {self.added}"


class SeenFrom:
    """A hook's function that sees the paths of calls in the model that the hook was added to. In a graph it sets the
    path of the call directly."""

    __slots__ = ("function", "hook", "path", "paths")
    module = None
    first = ()

    def __init__(self, hook: Hook, path: str) -> None:
        self.hook, self.function, self.paths, self.path = hook, hook.function, hook.paths, path

    def path_of(self, module: Module) -> str:
        """The path of the module, for a Call in a graph."""
        return self.path

    def __call__(self, call: Call) -> None:
        """Run the function."""
        if is_dynamo_compiling():
            names, call.names = call.names, self
            self.function(call)
            call.names = names
            return
        running = here.running
        before, running.paths = running.paths, self.paths
        try:
            self.function(call)
        finally:
            running.paths = before


class Handle:
    """The undo of something attached: call `remove()`, or use it as a `with` block. Removing twice is harmless."""

    __slots__ = ("_undo",)

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo: Callable[[], None] | None = undo

    @property
    def active(self) -> bool:
        """Whether it is still attached."""
        return self._undo is not None

    def remove(self) -> None:
        """Remove exactly what was attached; everything else stays."""
        if self._undo is not None:
            self._undo()
            self._undo = None  # not before: an undo that failed can be repeated

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


def make_hooks(*, order: float = 0, compiled: Compiled = "trace", **phases: HookFunction | None) -> tuple[Hook, ...]:
    """One Hook for each phase that has a function; ArgumentError if one cannot be called, or without any.

    `compiled` says what happens in a graph of `torch.compile`: the hook is traced ("trace"), called whenever the graph
    runs ("callback"), left out with a warning ("leave out"), or left out without one ("outside").
    """
    added = caller()
    for phase, hook in phases.items():
        if hook is not None and not callable(hook):
            raise ArgumentTypeError(f"{phase}= takes a function of one argument, the call, not {hook!r} ({added})")

    hooks = tuple(
        Hook(hook, cast(Phase, phase), order, added, compiled) for phase, hook in phases.items() if hook is not None
    )
    if not hooks:
        wanted = ", ".join(f"{phase}=" for phase in phases)
        raise ArgumentError(f"no hook was given; pass at least one of {wanted} ({added})")
    return hooks


def caller() -> str:
    """file:line of the innermost frame outside this package."""
    frame, _ = outside()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def in_order(hooks: Iterable[Hook], phase: Phase) -> tuple[Hook, ...]:
    """The hooks of one phase, smaller order first, ties as they were added."""
    return tuple(sorted((hook for hook in hooks if hook.phase == phase), key=lambda hook: hook.order))


def place_of(function: Any, *, wrapped: bool = True) -> str:
    """file:line of the source of a function, a method, or the `__call__` of an object; "" if it is unknown. For a
    wrapper (functools.wraps) it is that of the wrapped function, or with wrapped=False that of the wrapper.

    >>> place_of(print)
    ''
    """
    with suppress(Exception):  # an object may define any attribute
        function = getattr(function, "__func__", function)
        function = inspect.unwrap(function) if wrapped else function
        called = function if hasattr(function, "__code__") else inspect.getattr_static(type(function), "__call__", None)
        code = getattr(called, "__code__", None)
        if isinstance(code, CodeType):
            return f"{code.co_filename}:{code.co_firstlineno}"
    return ""
