"""Call: one call of one module, as it happens."""

import threading
from typing import Any

from torch.nn import Module


class Call:
    """One call of one module while it runs: what every step of ours is given, may read, and may change.

    - `module`, `path` (dotted, under the model that the hooks were put on; "" for that model itself), `index` (0 for the first call
      of this module since its first hook was put on);
    - `parent`: the hooked call that this one runs inside of, on the same thread; None at the top;
    - `args`, `kwargs`: what the caller passed. A `before` step that assigns them changes what the module gets;
    - `output`: None until the module has run. An `after` step that assigns it changes what the caller gets;
    - `error`: the exception that ends the call, for `always` steps; None when all is well.
    """

    __slots__ = ("__weakref__", "args", "error", "index", "kwargs", "module", "output", "parent", "path")

    module: Module
    path: str
    index: int
    parent: "Call | None"
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    error: BaseException | None

    def __repr__(self) -> str:
        return f"<Call {self.index} of {self.path or '(the model)'}: {type(self.module).__name__}>"


class Running:
    """What runs on one thread now: the innermost hooked call, and inside of `everywhere` the paths below the outermost module."""

    __slots__ = ("call", "names")

    def __init__(self) -> None:
        self.call: Call | None = None
        self.names: dict[Module, str] | None = None


class Threads(threading.local):
    """Gives each thread its own `Running`."""

    def __init__(self) -> None:
        self.running = Running()


here = Threads()
