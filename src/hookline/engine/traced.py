"""What a hooked call is while `torch.compile` traces it: hooks that become part of the graph, and taps in it for those
that run when the graph does.

All of this is read by dynamo, once for each graph, so it is written plainly: no try, no caches, no work that has no
place in a graph.
"""

import dataclasses
import operator
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module

from hookline.engine.call import new_call
from hookline.engine.graph_calls import graph_calls
from hookline.engine.graph_values import kinds_of, packed
from hookline.engine.tap import TOKEN, careful, operators, show_gradients
from hookline.model.tensors import DEEPEST
from hookline.torch_private import get_interpreter_stack

if TYPE_CHECKING:
    from hookline.engine.site import Site


NO_TAPS = {"vmap", "cond", "while_loop", "scan", "associative_scan", "map_impl", "flex_attention", "invoke_subgraph"}
LEAST, MOST = -(2**63), 2**63 - 1  # of the whole numbers that a tap takes as they come


class CarefulCompiler:
    """A backend of torch.compile whose graphs clean up after errors."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.__name__ = getattr(backend, "__name__", type(backend).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the backend makes of a graph."""
        from hookline.torch_private.compiler import LazyGraphModule

        graph = self.backend(*args, **kwargs)
        owner = getattr(graph, "__self__", None)
        if isinstance(owner, LazyGraphModule):  # dynamo does the same with what a backend gives
            LazyGraphModule.force_recompile(owner)
            graph = owner.forward
        return careful(graph) if callable(graph) else graph


class Graphs:
    """Whether a graph was ever made with our hooks in it."""

    made = False


graphs = Graphs()


def traced_call(self: Module, site: "Site", original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call of a hooked module as it goes into a graph."""
    if not make_ready():
        return original(self, *args, **kwargs)
    plan = site.plan.compiled
    if plan.leaves_out:
        tell_what_is_left_out()
    call = None
    if plan.traced:
        call = new_call(self, site, 0, args, kwargs)
        call.parent = None
        for hook in plan.traced_before:
            hook(call)
        args, kwargs = call.args, call.kwargs
    ticket = None
    if plan.taps and has_room_for_taps():
        clean_up_after_errors()
        tensors: list[Tensor] = []
        numbers: list[int] = []
        given = f"('t',({structure(args, tensors, numbers)},{structure(kwargs, tensors, numbers)}))"
        kinds = kinds_of(tensors, plan.sees_before)
        parts = packed(tensors, kinds)
        ticket = torch.ops.hookline.began(TOKEN, site.key, depth_in_graph(), parts, kinds, numbers, given)

    if call is not None and call.instead is not None:
        output = call.instead(lambda *a, **k: original(self, *a, **k), *args, **kwargs)
    else:
        output = original(self, *args, **kwargs)

    if call is not None:
        call.output = output
        for hook in plan.traced_after:
            hook(call)
        output = call.output
    if ticket is not None:
        tensors, numbers = [], []
        gave = structure(output, tensors, numbers)
        kinds = kinds_of(tensors, plan.sees_after)
        torch.ops.hookline.ended(TOKEN, ticket, packed(tensors, kinds), kinds, numbers, gave)
        if plan.sees_gradients and torch.is_grad_enabled() and "G" in gave and gradients_are_told():
            show_gradients(ticket, tensors, kinds)
    return output


def structure(value: Any, tensors: list[Tensor], numbers: list[int], depth: int = 0) -> str:
    """The nesting of a value as a literal of Python, with what changes from call to call apart: its tensors and whole
    numbers. `tap.filled` puts both together again. Below `DEEPEST` there is nothing: a list may be inside itself."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return "'G'" if value.requires_grad else "'T'"
    if value is None or isinstance(value, bool) or type(value) is str:
        return f"('p',{value!r})"
    if isinstance(value, int):
        if not fits(value):  # no tap takes such a one: it is a constant of the graph
            return f"('p',{operator.index(value)!r})"
        numbers.append(value)
        return "'I'"
    if depth >= DEEPEST:
        return f"('o',{type(value).__name__!r})"
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        parts = ""
        for part in value:
            parts += structure(part, tensors, numbers, depth + 1) + ","
        return f"('t',({parts}))" if isinstance(value, tuple) else f"('l',({parts}))"
    named = None
    if type(value).__module__ in ("numpy", "torch._C"):  # whose classes dynamo does not let be asked for more
        return f"('o',{type(value).__name__!r})"
    if dataclasses.is_dataclass(value) and not isinstance(value, Mapping):
        named = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    elif isinstance(value, tuple):
        named = [(name, getattr(value, name)) for name in value._fields]  # type: ignore[attr-defined]
    elif isinstance(value, Mapping):
        named = [(key if type(key) in (str, int, bool) else str(key), part) for key, part in value.items()]
    if named is None:
        return f"('o',{type(value).__name__!r})"
    parts = ""
    for name, part in named:
        parts += f"({name!r},{structure(part, tensors, numbers, depth + 1)}),"
    if isinstance(value, Mapping) and not dataclasses.is_dataclass(value):
        return f"('d',({parts}))"
    return f"('f',{type(value).__name__!r},({parts}))"


def fits(value: int) -> bool:
    """Whether a tap takes a whole number as it comes; one that is not known when the graph is made, it does."""
    from hookline.torch_private.compiler import guard_or_true

    return guard_or_true(value >= LEAST) and guard_or_true(value <= MOST)


def make_ready() -> bool:
    """Have the operators of the taps, and the modules' keys, before a graph names them; False where the graph is an
    export, which is to be as that of the bare model, and a warning says so."""
    from hookline.torch_private.compiler import tracing

    trace = tracing()
    refuse_to_be_packaged(trace.output)
    operators()
    graphs.made = True
    graph_calls.give_keys()
    if not trace.export:
        return True
    warnings.warn("torch.export leaves hookline's hooks out: what is exported is the bare model", stacklevel=2)
    return False


def refuse_to_be_packaged(output: Any) -> None:
    """Raise where the code that is compiled is to be kept for other processes: our hooks are of this one. (PyTorch
    would say so obscurely, once it fails to write down what the code depends on.)"""
    from hookline.torch_private.compiler import PackageError

    if output.package is None:
        return
    raise PackageError(
        "a module with hookline's hooks on it cannot be compiled to be kept for other processes, as "
        "torch._dynamo.config.caching_precompile does: the hooks are of this process. Give the model to torch.compile "
        "while caching_precompile is False; or, where hooks are on, run it uncompiled, as in "
        "torch.compiler.set_stance('force_eager')"
    )


def has_room_for_taps() -> bool:
    """Whether a graph may hold taps where it is made now: not inside vmap, nor in a part that an operator such as
    torch.cond calls, which may change no tensor; a warning says so."""
    from hookline.torch_private.compiler import tracing

    tracer: Any = tracing().output.current_tracer
    within = {interpreter.key().name.lower() for interpreter in get_interpreter_stack() or ()}
    while tracer is not None:
        within.add(str(tracer.source_target))
        tracer = tracer.parent
    refusing = within & NO_TAPS
    if refusing:
        which = ", ".join(sorted(refusing))
        warnings.warn(f"calls inside {which} are not seen in a graph of torch.compile", stacklevel=2)
    return not refusing


def depth_in_graph() -> int:
    """How many calls of hooked modules the graph has around the one that is traced."""
    from hookline.torch_private.compiler import tracing

    frame: Any = tracing().output.current_tx
    found = -1
    while frame is not None:
        found += frame.f_code is traced_call.__code__
        frame = frame.parent
    return found


def clean_up_after_errors() -> None:
    """Have the graph that is made forget the calls that it began when it raises."""
    from hookline.torch_private.compiler import tracing

    output: Any = tracing().output
    if not isinstance(output.compiler_fn, CarefulCompiler):
        output.compiler_fn = CarefulCompiler(output.compiler_fn)


def gradients_are_told() -> bool:
    """Whether a graph can tell the gradient of what a call gives: not under compiled autograd, nor where the module's
    code broke the graph, so that its output comes into this one from outside; a warning says so."""
    from hookline.torch_private.compiler import compiled_autograd, config, tracing

    why = ""
    if compiled_autograd.compiled_autograd_enabled or config.compiled_autograd:
        why = "under compiled autograd a graph does not tell gradients"
    elif is_from_outside(tracing().output.current_tx):
        why = "where a module's code breaks the graph, the gradient of what it gives is not told"
    if why:
        warnings.warn(why, stacklevel=2)
    return not why


def is_from_outside(frame: Any) -> bool:
    """Whether a call, by dynamo's frame of `traced_call`, goes on after a break, and gives a tensor that was made
    before the graph that goes on. (With nested_graph_breaks that often begins inside the module.)"""
    if "resume_in_traced_call" not in frame.f_code.co_name:
        return False
    given = frame.symbolic_locals["tensors"].realize().items
    return any(tensor.as_proxy().node.op == "placeholder" for tensor in given)


def tell_of_method(name: str) -> None:
    """Say, while a graph is made, that calls of a method are not seen in it."""
    warnings.warn(
        f"calls of the method {name} are not seen in a graph of torch.compile, only what they call", stacklevel=2
    )


def tell_what_is_left_out() -> None:
    """Say, while a graph is made, which hooks do not run in it; once of each."""
    left_out = {hook: None for site in graph_calls.sites.values() for hook in site.plan.compiled.left_out}
    hooks = [hook for hook in left_out if not hook.warned]
    if not hooks:
        return
    for hook in hooks:
        hook.warned = True
    which = "; ".join(f"the {hook}" for hook in hooks)
    warnings.warn(
        f"these do not run in a graph of torch.compile: {which}. Call the model uncompiled, as in "
        "torch.compiler.set_stance('force_eager'), or pass compiled='callback'",
        stacklevel=2,
    )


# Dynamo calls these while it traces, and does not look into them. (So says torch.compiler.assume_constant_result, which
# loads the compiler to do so.)
_NOT_LOOKED_INTO: tuple[Any, ...] = (
    *(make_ready, has_room_for_taps, clean_up_after_errors, depth_in_graph),
    *(gradients_are_told, tell_of_method, tell_what_is_left_out),
)
for _function in _NOT_LOOKED_INTO:
    _function._dynamo_marked_constant = True
