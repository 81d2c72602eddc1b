"""Call: one call of one module, as it happens."""

import threading
from typing import Any, Protocol

from torch.nn import Module

from hookline.model.paths import paths


class Call:
    """One call of one module while it runs: what every step of ours is given, may read, and may change.

    - `module`; `path`, dotted, under the model that the first of the module's hooks was put on ("" for that model
      itself); `index`, 0 for the first call of this module since then;
    - `parent`: the hooked call that this one runs inside of, on the same thread; None at the top;
    - `args`, `kwargs`: what the caller passed. A `before` step that assigns them changes what the module gets;
    - `output`: None until the module has run. An `after` step that assigns it changes what the caller gets;
    - `error`: the exception that ends the call, for `always` steps; None when all is well.
    """

    __slots__ = ("__weakref__", "args", "error", "index", "kwargs", "module", "names", "output", "parent")

    module: Module
    names: "Names"
    index: int
    parent: "Call | None"
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    error: BaseException | None

    @property
    def path(self) -> str:
        """The module's dotted path."""
        return self.names.path_of(self.module)

    def __repr__(self) -> str:
        return f"<Call {self.index} of {self.path or '(the model)'}: {type(self.module).__name__}>"


class Names(Protocol):
    """Whatever can tell the path of the module that is called."""

    def path_of(self, module: Module) -> str:
        """The dotted path of a module."""
        ...


class PathsBelow:
    """The paths of the modules below one that was called, found out when one is first asked for."""

    __slots__ = ("known", "outermost")

    def __init__(self, outermost: Module) -> None:
        self.outermost = outermost
        self.known: dict[int, str] | None = None

    def path_of(self, module: Module) -> str:
        """The dotted path below the outermost module; of one that is not below it, its class in angle brackets."""
        if self.known is None:
            self.known = {id(member): own[0] for member, own in paths(self.outermost)}
        return self.known.get(id(module), f"<{type(module).__name__}>")


class Running:
    """What runs on one thread now: the innermost hooked call; inside of `everywhere` the paths below the outermost
    module."""

    __slots__ = ("call", "names")

    def __init__(self) -> None:
        self.call: Call | None = None
        self.names: PathsBelow | None = None


class Threads(threading.local):
    """Gives each thread its own `Running`."""

    def __init__(self) -> None:
        self.running = Running()


here = Threads()
