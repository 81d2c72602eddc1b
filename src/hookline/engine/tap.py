"""Taps: operators in a compiled graph, at the beginning and end of each hooked call, that run hooks whenever the graph
runs.

In the forward a tap changes `TOKEN`, a small tensor, so that no compiler removes or reorders taps. In the backward,
where order does not matter, a tap is an operator with an effect (PyTorch's term): a token changed by two forwards would
no longer be the one that the backward of the first has saved. (Effects alone would not do for the forward: inductor
does not keep them in order.) The module is passed as a tensor, so that modules of one kind share a graph. `began`
returns a ticket, the number of the call, which `ended` receives and the graph keeps for the gradients.

graph_calls.py holds the calls that have begun.
"""

import ast
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from hookline.engine.call import here, new_call
from hookline.engine.graph_calls import DropAtEnd, GraphCall, GraphCalls, ShownTensors, graph_calls, inside
from hookline.engine.graph_values import packed, unpacked
from hookline.engine.run import finish
from hookline.engine.unseen import unseen
from hookline.model.tensors import Fields, Opaque
from hookline.torch_private import at_end_of_backward

SHOWN = "Tensor[] parts, str kinds, SymInt[] numbers, str structure"
SCHEMAS = {
    "began": f"(Tensor(a!) token, Tensor key, int depth, {SHOWN}) -> Tensor",
    "ended": f"(Tensor(a!) token, Tensor ticket, {SHOWN}) -> ()",
    "graded": "(Tensor ticket, Tensor[] parts, str kind, int place) -> ()",
}
TOKEN = torch.zeros((), dtype=torch.uint8, device="cpu")


def show_gradients(ticket: Tensor, tensors: list[Tensor], kinds: str) -> Tensor:
    """Show the gradient of each of these tensors to the functions that wait for it, by tensor hooks. These change no
    tensor and add no node, and become part of the graph of the backward pass."""
    for place, tensor in enumerate(tensors):
        if tensor.requires_grad:
            handles: list[Any] = []
            hook = partial(_show, ticket, place, kinds[place], handles)
            handle = tensor.register_hook(hook)  # type: ignore[no-untyped-call]
            if tensor.is_leaf:  # a parameter, which outlives the graph
                handles.append(handle)
    return ticket


def _show(ticket: Tensor, place: int, kind: str, handles: list[Any], gradient: Tensor) -> None:
    for handle in handles:
        handle.remove()
    torch.ops.hookline.graded(ticket, packed([gradient], kind), kind, place)


def began(
    token: Tensor, key: Tensor, depth: int, parts: list[Tensor], kinds: str, integers: list[int], structure: str
) -> Tensor:
    """Run the hooks before a call, which is `depth` calls deep in its graph; returns its ticket."""
    number = next(graph_calls.numbers)
    ticket = torch.tensor(number)
    site = graph_calls.sites.get(int(key))
    if site is not None and site.plan.compiled.taps:
        given, rows = shown(structure, parts, kinds)
        args, kwargs = filled(structure, given, integers)
        running = here.running
        call: GraphCall = new_call(site.module(), site, next(site.count), args, kwargs, GraphCall)
        call.parent = graph_calls.above(running, depth)
        running.call = call
        graph_calls.begin(call, number, depth, ticket)
        if call.of_pass != -1:  # a graph recomputes only what it needs, so a call may not end
            at_end_of_backward(DropAtEnd(graph_calls, call, running))
        try:
            with showing(call, ShownTensors(given, rows)):
                for hook in site.plan.compiled.tapped_before:
                    hook(call)
        except BaseException as error:
            graph_calls.end_by(error, [call], running)
            raise
    return ticket


def ended(token: Tensor, ticket: Tensor, parts: list[Tensor], kinds: str, integers: list[int], structure: str) -> None:
    """Run the hooks after a call."""
    call = graph_calls.end(int(ticket))
    if call is None:
        return
    running = here.running
    graph_calls.drop(inside(call, running), running)
    running.call = call
    given, rows = shown(structure, parts, kinds)
    call.output = filled(structure, given, integers)
    plan = call.names.plan  # type: ignore[attr-defined]
    always = iter(plan.compiled.tapped_always)
    try:
        with showing(call, ShownTensors(given, rows, call.number)):
            for hook in itertools.chain(plan.compiled.tapped_after, always):
                hook(call)
    except BaseException as error:
        finish(plan, call, always, error)
        raise
    finally:
        running.call = call.parent


def graded(ticket: Tensor, parts: list[Tensor], kind: str, place: int) -> None:
    """Show a gradient to the functions that wait for it."""
    awaited = graph_calls.awaiting.get(int(ticket))
    if awaited is None:
        return
    (gradient,), rows = unpacked(parts, kind)
    gradient = gradient.detach()
    shown_gradient = ShownTensors([gradient], rows)
    with torch.enable_grad():  # as in hooks that a backward pass runs outside graphs
        for see in awaited.sees.get(place, ()):
            see(gradient, shown_gradient)


@contextmanager
def showing(call: GraphCall, tensors: ShownTensors) -> Iterator[None]:
    """A block in which hooks see the tensors of a call. Gradients are enabled, as outside a graph."""
    call._shown = tensors
    try:
        with torch.enable_grad():
            yield
    finally:
        call._shown = None


def careful(graph: Callable[..., Any]) -> Callable[..., Any]:
    """The graph, with care for the calls that it began and did not end: if it raises, they end with that error, else
    they are dropped when nothing refers to their tickets any more."""

    def run(*args: Any) -> Any:
        running = here.running
        around, running.graph = running.graph, next(graph_calls.numbers)
        try:
            output = graph(*args)
            for call in graph_calls.open_since(running.graph, running):
                graph_calls.drop_without_ticket(call, running)
        except BaseException as error:
            graph_calls.end_by(error, graph_calls.open_since(running.graph, running), running)
            raise
        finally:
            running.graph = around
        return output

    return run


def shown(structure: str, parts: list[Tensor], kinds: str) -> tuple[list[Tensor], list[list[Tensor] | None]]:
    """The tensors as hooks see them, and the sums of each. Their `requires_grad` is as in the model, although the
    graph's tensors require none."""
    tensors, rows = unpacked(parts, kinds)
    marked = [tensor.detach().requires_grad_(flag) for tensor, flag in zip(tensors, flags(structure), strict=True)]
    return marked, rows


@lru_cache(maxsize=4096)
def parsed(structure: str) -> Any:
    """A structure as tuples; see `structure` in traced.py."""
    return ast.literal_eval(structure)


@lru_cache(maxsize=4096)
def flags(structure: str) -> tuple[bool, ...]:
    """Whether each tensor of a structure requires a gradient."""
    found: list[bool] = []
    fill(parsed(structure), lambda part: found.append(part == "G"), lambda: 0)
    return tuple(found)


def filled(structure: str, tensors: list[Tensor], integers: list[int]) -> Any:
    """The value of a structure, with its tensors and whole numbers."""
    ahead, whole = iter(tensors), iter(integers)
    return fill(parsed(structure), lambda _: next(ahead), lambda: next(whole))


def fill(part: Any, tensor: Callable[[str], Any], integer: Callable[[], int]) -> Any:
    """A part of a structure, with the results of these functions for its tensors and whole numbers."""
    if isinstance(part, str):
        return integer() if part == "I" else tensor(part)
    kind, *rest = part
    if kind == "p":
        return rest[0]
    if kind == "o":
        return Opaque(rest[0])
    if kind in ("t", "l"):
        made = [fill(each, tensor, integer) for each in rest[0]]
        return tuple(made) if kind == "t" else made
    named = {name: fill(each, tensor, integer) for name, each in rest[-1]}
    return named if kind == "d" else Fields(rest[0], named)


@cache
def operators() -> Any:
    """Register the operators, once, and allow them in graphs. This loads PyTorch's compiler, a second or two."""
    from hookline.torch_private.compiler import EffectType, register_effectful_op

    library = torch.library.Library("hookline", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name, function in (("began", began), ("ended", ended), ("graded", graded)):
        library.define(name + SCHEMAS[name])  # type: ignore[no-untyped-call]
        library.impl(name, function, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake("hookline::began", lambda *_: torch.empty((), dtype=torch.int64), lib=library)
    for name in ("ended", "graded"):
        torch.library.register_fake(f"hookline::{name}", lambda *_: None, lib=library)
    register_effectful_op("hookline::graded", EffectType.ORDERED)
    torch.compiler.allow_in_graph(show_gradients)  # type: ignore[no-untyped-call]
    for taps_call in (began, ended, graded, _show, GraphCalls._gone, DropAtEnd.__call__):
        unseen(taps_call)
    return library
