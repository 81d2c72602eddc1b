"""A hooked call while `torch.compile` traces it: hooks that become part of the graph, and taps for those that run
whenever the graph runs.

Dynamo traces this code, once for each graph, so it is kept simple: no try, no caches, nothing that a graph cannot hold.
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
LEAST, MOST = -(2**63), 2**63 - 1  # of the integers that a tap accepts


class CarefulCompiler:
    """A backend of torch.compile whose graphs clean up after errors."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.__name__ = getattr(backend, "__name__", type(backend).__name__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The compiled graph."""
        from hookline.torch_private.compiler import LazyGraphModule

        graph = self.backend(*args, **kwargs)
        owner = getattr(graph, "__self__", None)
        if isinstance(owner, LazyGraphModule):  # dynamo does the same with the result of a backend
            LazyGraphModule.force_recompile(owner)
            graph = owner.forward
        return careful(graph) if callable(graph) else graph


class Graphs:
    """Whether a graph with our hooks was ever made."""

    made = False


graphs = Graphs()


def traced_call(self: Module, site: "Site", original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The call of a hooked module in a graph."""
    if not make_ready():
        return original(self, *args, **kwargs)
    plan = site.plan.compiled
    if plan.leaves_out:
        warn_of_left_out_hooks()
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
        if plan.sees_gradients and torch.is_grad_enabled() and "G" in gave and shows_gradients():
            show_gradients(ticket, tensors, kinds)
    return output


def structure(value: Any, tensors: list[Tensor], numbers: list[int], depth: int = 0) -> str:
    """The nesting of a value as a Python literal. Its tensors and integers, which change from call to call, go to
    `tensors` and `numbers`; `tap.filled` joins them again. It ends at `DEEPEST`, since a list may contain itself."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return "'G'" if value.requires_grad else "'T'"
    if value is None or isinstance(value, bool) or type(value) is str:
        return f"('p',{value!r})"
    if isinstance(value, int):
        if not fits(value):  # too large for a tap: it is a constant of the graph
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
    if type(value).__module__ in ("numpy", "torch._C"):  # dynamo allows no further questions about these
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
    """Whether a tap accepts an integer; True for one that is unknown when the graph is made."""
    from hookline.torch_private.compiler import guard_or_true

    return guard_or_true(value >= LEAST) and guard_or_true(value <= MOST)


def make_ready() -> bool:
    """Register the operators of taps, and give modules their keys, before a graph refers to them. False, with a
    warning, if the graph is an export, which is to be that of the model without hooks."""
    from hookline.torch_private.compiler import tracing

    trace = tracing()
    refuse_to_be_packaged(trace.output)
    operators()
    graphs.made = True
    graph_calls.give_keys()
    if not trace.export:
        return True
    warnings.warn("torch.export leaves out hookline's hooks: the plain model is exported", stacklevel=2)
    return False


def refuse_to_be_packaged(output: Any) -> None:
    """Raise if the compiled code is to be stored for other processes, since our hooks exist only in this one. (PyTorch
    would fail later, with an obscure error, when it writes what the code depends on.)"""
    from hookline.torch_private.compiler import PackageError

    if output.package is None:
        return
    raise PackageError(
        "a module with hookline's hooks cannot be compiled for other processes, as "
        "torch._dynamo.config.caching_precompile does: the hooks exist only in this process. Call torch.compile "
        "while caching_precompile is False, or run the hooked model uncompiled, as in "
        "torch.compiler.set_stance('force_eager')"
    )


def has_room_for_taps() -> bool:
    """Whether the graph may have taps at this point; if not, a warning says so. It may not inside vmap, nor in a part
    that an operator such as torch.cond calls, because that part must not change tensors."""
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
    """The number of calls of hooked modules around the one that is traced, in its graph."""
    from hookline.torch_private.compiler import tracing

    frame: Any = tracing().output.current_tx
    found = -1
    while frame is not None:
        found += frame.f_code is traced_call.__code__
        frame = frame.parent
    return found


def clean_up_after_errors() -> None:
    """Make the graph drop the calls that it began if it raises."""
    from hookline.torch_private.compiler import tracing

    output: Any = tracing().output
    if not isinstance(output.compiler_fn, CarefulCompiler):
        output.compiler_fn = CarefulCompiler(output.compiler_fn)


def shows_gradients() -> bool:
    """Whether a graph can show the gradients of a call's output; if not, a warning says so. It cannot under compiled
    autograd, nor if the module's code broke the graph, so that its output enters this graph from outside."""
    from hookline.torch_private.compiler import compiled_autograd, config, tracing

    why = ""
    if compiled_autograd.compiled_autograd_enabled or config.compiled_autograd:
        why = "a graph does not show gradients under compiled autograd"
    elif is_from_outside(tracing().output.current_tx):
        why = "the gradient of a module's output is not seen if the module's code breaks the graph"
    if why:
        warnings.warn(why, stacklevel=2)
    return not why


def is_from_outside(frame: Any) -> bool:
    """Whether a call, by dynamo's frame of `traced_call`, continues after a graph break and returns a tensor that was
    made before the graph that continues it. (With nested_graph_breaks that graph often begins inside the module.)"""
    if "resume_in_traced_call" not in frame.f_code.co_name:
        return False
    given = frame.symbolic_locals["tensors"].realize().items
    return any(tensor.as_proxy().node.op == "placeholder" for tensor in given)


def warn_of_method(name: str) -> None:
    """Warn, while a graph is made, that calls of a method are not seen in it."""
    warnings.warn(
        f"calls of the method {name} are not seen in a graph of torch.compile, only what they call", stacklevel=2
    )


def warn_of_left_out_hooks() -> None:
    """Warn, while a graph is made, of the hooks that do not run in it; once for each."""
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


# Dynamo calls these while it traces, and does not trace into them. (torch.compiler.assume_constant_result marks them in
# the same way, but loads the compiler to do so.)
_NOT_TRACED_INTO: tuple[Any, ...] = (
    *(make_ready, has_room_for_taps, clean_up_after_errors, depth_in_graph),
    *(shows_gradients, warn_of_method, warn_of_left_out_hooks),
)
for _function in _NOT_TRACED_INTO:
    _function._dynamo_marked_constant = True
