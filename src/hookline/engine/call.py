"""Call: one call of one module, as it happens."""

import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from torch import Tensor
from torch.nn import Module

from hookline.model.paths import PathTable, paths
from hookline.nested import Nested
from hookline.torch_private import current_backward_pass


class Call(Nested):
    """One call of one module: the argument of every hook, which may read and change it.

    - `module`: the module; `path`: its dotted path in the model that the module's first hook was added to ("" for that
      model itself); `index`: 0 for the first call of this module since then;
    - `parent`: the hooked call that this one runs inside, on the same thread; None at the top;
    - `args`, `kwargs`: what the caller passed. A `before` hook that assigns them changes what the module receives;
    - `instead`: None. If a `before` hook assigns a function, it is called instead of the module and of PyTorch's hooks
      on it, as `function(module_call, *args, **kwargs)`, where `module_call` is what would have been called;
    - `output`: None until the module has run. An `after` hook that assigns it changes what the caller receives;
    - `error`: the exception that ends the call, for `always` hooks; None without one;
    - `recompute`: whether a backward pass makes the call, to recompute activations under activation checkpointing;
    - `grad_output`: for backward hooks, the gradients of the output, nested as the output, None where none flows.
      A `backward_before` hook that assigns it changes what flows into the module;
    - `grad_input`, `grad_kwargs`: for `backward` hooks, the same for `args` and `kwargs`. Assigning them changes what
      flows on from the module.

    Backward hooks receive a separate `Call`. Only this one has gradients, and it holds no tensor of the forward:
    `args`, `kwargs` and `output` are empty.
    """

    __slots__ = (
        "__weakref__",
        "_origin",
        "args",
        "error",
        "index",
        "instead",
        "kwargs",
        "module",
        "names",
        "output",
        "parent",
    )

    module: Module
    names: "Names"
    index: int
    parent: "Call | None"
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    instead: Callable[..., Any] | None
    output: Any
    error: BaseException | None
    grad_output: Any
    grad_input: Any
    grad_kwargs: Any
    _origin: "Origin | None"
    _shown: "Shown | None" = None  # a call in a graph has a slot that hides this

    @property
    def path(self) -> str:
        """The module's dotted path."""
        own = self.names.path_of(self.module)
        paths = here.running.paths
        return own if paths is None else paths.path_of(self.module, own)

    @property
    def recompute(self) -> bool:
        """Whether a backward pass makes this call."""
        if self._origin is not None:
            return self._origin.recompute
        return current_backward_pass() != -1

    def origin(self) -> "Origin":
        """What backward hooks need to know about this call and the calls around it."""
        found = self._origin
        if found is None:
            found = self._origin = Origin()
            names, parent = self.names, self.parent
            found.names = names
            if names.module is not None:
                found.module, found.kept = names.module, None
            else:
                found.module, found.kept = weakref.ref(self.module), self.module
            found.index = self.index
            found.parent = None if parent is None else parent._origin or parent.origin()
            found.recompute = current_backward_pass() != -1
        return found

    def __repr__(self) -> str:
        return f"<Call {self.index} of {self.path or '(the model)'}: {type(self.module).__name__}>"


def new_call(
    module: Module,
    names: "Names",
    index: int,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    kind: type[Call] = Call,
) -> Any:
    """A new call of this kind. A function instead of `__init__`: Python calls it without leaving its eval loop."""
    call = kind()
    call.module = module
    call.names = names
    call.index = index
    call.args = args
    call.kwargs = kwargs
    call.instead = call.output = call.error = call._origin = None
    return call


class CallInBackward(Call):
    """The Call that backward hooks receive."""

    __slots__ = ("_shown", "grad_input", "grad_kwargs", "grad_output")

    def __init__(self, module: Module, origin: "Origin", shown: "Shown | None" = None) -> None:
        self.module, self.names, self.index, self._origin = module, origin.names, origin.index, origin
        self._shown = shown
        self.args, self.kwargs, self.output, self.error, self.instead = (), {}, None, None, None
        self.grad_output = self.grad_input = self.grad_kwargs = None

    @property
    def parent(self) -> Call | None:  # type: ignore[override]
        """The call that this one ran inside."""
        above = self._origin.parent if self._origin is not None else None
        return None if above is None else above.call()


class Origin(Nested):
    """The identity of a call, without tensors, so that the graph may refer to it. It does not keep a module with hooks
    of its own alive, because the module may keep the graph."""

    __slots__ = ("__weakref__", "index", "kept", "module", "names", "parent", "recompute")

    module: weakref.ref[Module]
    kept: Module | None
    names: "Names"
    index: int
    parent: "Origin | None"
    recompute: bool

    def call(self, shown: "Shown | None" = None) -> Call | None:
        """A Call for backward hooks, with what a graph shows them; None once the module is gone."""
        module = self.module()
        return None if module is None else CallInBackward(module, self, shown)


class Shown(Protocol):
    """What a compiled graph shows of a call's tensors to the hooks that it calls.

    - `sums`: the sums that the graph has computed of tensors, by the tensor's id (see graph_values.py).
    """

    sums: dict[int, list[Tensor]]

    def on_gradient(self, tensor: Tensor, see: "SeeGradient") -> Callable[[], None]:
        """Call `see` with the gradient of an output and what the graph shows of it; returns the undo."""
        ...


SeeGradient: TypeAlias = Callable[[Tensor, Shown], Any]


class Names(Protocol):
    """Anything that knows the path of the called module.

    - `module`: the module that it belongs to, None if it knows the paths of several;
    - `first`: the hooks that were there when it began to count the calls.
    """

    first: tuple[Any, ...]

    @property
    def module(self) -> weakref.ref[Module] | None:
        """The module that this belongs to."""
        ...

    def path_of(self, module: Module) -> str:
        """The dotted path of a module."""
        ...


class PathsBelow:
    """The paths of the modules below one that was called, computed when first needed."""

    __slots__ = ("known", "outermost")
    module = None
    first = ()

    def __init__(self, outermost: Module) -> None:
        self.outermost = outermost
        self.known: dict[int, str] | None = None

    def path_of(self, module: Module) -> str:
        """The dotted path below the outermost module; for a module outside it, its class in angle brackets."""
        if self.known is None:
            self.known = {id(member): own[0] for member, own in paths(self.outermost)}
        return self.known.get(id(module), f"<{type(module).__name__}>")


class Running:
    """What is running on one thread.

    - `call`: the innermost hooked call; `names`: inside `everywhere`, the paths below the outermost module;
    - `paths`: where `call.path` is looked up first while a hook runs that was added to another model than the first;
    - `graph`: the number at which the running compiled graph began, 0 without one.
    """

    __slots__ = ("call", "graph", "names", "paths")

    def __init__(self) -> None:
        self.call: Call | None = None
        self.names: PathsBelow | None = None
        self.paths: PathTable | None = None
        self.graph = 0


class Threads(threading.local):
    """Gives each thread its own `Running`."""

    def __init__(self) -> None:
        self.running = Running()


here = Threads()
