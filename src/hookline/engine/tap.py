"""Taps: what stands in a compiled graph where a hooked module begins and ends, and runs its hooks whenever the graph
runs.

In the forward a tap is an operator that changes `TOKEN`, a small tensor: so no compiler removes one, and all stay in
order. In the backward, where order does not matter, it is an operator with an effect, as PyTorch calls it: a token that
two forwards change would not be what the backward of the first has kept. (Effects alone would not do: inductor does not
keep them in order.) Which module it is comes as a tensor, so that modules of one kind share a graph. `began` gives a
ticket, the number of the call, that `ended` takes, and that the graph keeps for the gradients.

Which call one runs inside of is told by their depths in the graph, which are known when it is made. Calls that do not
end, since something raised, are ended by the graph that began them (`careful`) when that raises; or, where the graph
was broken inside of them, let go of when the ticket is gone, which the code between the graphs holds. Those that a
backward pass makes again, in part perhaps, are let go of when that pass is over.
"""

import ast
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hookline.engine.call import Call, Running, here, new_call
from hookline.engine.graph_values import packed, unpacked
from hookline.engine.run import finish
from hookline.engine.unseen import unseen
from hookline.model.tensors import Fields, Opaque
from hookline.torch_private import at_end_of_backward, current_backward_pass, disable_current_modes

if TYPE_CHECKING:
    from hookline.engine.hook import Hook

See = Callable[[Tensor], Any]

SHOWN = "Tensor[] parts, str kinds, SymInt[] numbers, str structure"
SCHEMAS = {
    "began": f"(Tensor(a!) token, Tensor key, int depth, {SHOWN}) -> Tensor",
    "ended": f"(Tensor(a!) token, Tensor ticket, {SHOWN}) -> ()",
    "graded": "(Tensor ticket, Tensor[] parts, str kind, int place) -> ()",
}
TOKEN = torch.zeros((), dtype=torch.uint8, device="cpu")

sites: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()  # hooked modules by their keys
waiting: "weakref.WeakSet[Hook]" = weakref.WeakSet()  # whose modules get their keys when a graph is made
numbers = itertools.count(1)  # of keys and of tickets
open_calls: dict[int, Call] = {}  # by ticket
taps: dict[Call, "Tap"] = {}  # of the open calls
awaiting: dict[int, "Output"] = {}  # by ticket: whoever waits for the gradients of a call


def give_keys() -> None:
    """Give each hooked module that waits for it its key: a number in a tensor."""
    with suppress(KeyError):  # none is left
        while True:
            for module in waiting.pop().paths:
                namespace = module.__dict__
                site: Any = namespace.get("_hookline", namespace.get("_compiled_call_impl"))
                if getattr(site, "key", 0) is None:
                    number = next(numbers)
                    sites[number] = site
                    with disable_current_modes():
                        site.key = torch.tensor(number, device="cpu")


def show_gradients(ticket: Tensor, tensors: list[Tensor], kinds: str) -> Tensor:
    """Have the graph show the gradient of each of these tensors to those who wait for it. Tensor hooks: they change no
    tensor and add no node, and what a hook does becomes part of the graph of the backward pass."""
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


class Output:
    """What one call gave, while its hooks look at it: who wants to see the gradient of which of its tensors."""

    __slots__ = ("places", "sees", "ticket")

    def __init__(self, ticket: int, tensors: list[Tensor]) -> None:
        self.ticket = ticket
        self.places = {id(tensor): place for place, tensor in enumerate(tensors)}
        self.sees: dict[int, list[See]] = {}

    def on_gradient(self, tensor: Tensor, see: See) -> Callable[[], None]:
        """Call `see` with the gradient of a tensor of the output; gives the undo."""
        place = self.places.get(id(tensor), -1)
        self.sees.setdefault(place, []).append(see)
        awaiting[self.ticket] = self

        def undo() -> None:
            awaiting.pop(self.ticket, None)

        return undo


class Tap:
    """What is known of an open call besides: its number, how deep in its graph it is, the backward pass that makes it
    (or -1), and its ticket; of a call that is open when its graph has run, a weak reference to that."""

    __slots__ = ("depth", "number", "of_pass", "ticket")

    def __init__(self, number: int, depth: int, ticket: Tensor) -> None:
        self.number, self.depth, self.of_pass = number, depth, current_backward_pass()
        self.ticket: Tensor | weakref.ref[Tensor] = ticket


def began(
    token: Tensor, key: Tensor, depth: int, parts: list[Tensor], kinds: str, integers: list[int], structure: str
) -> Tensor:
    """Run the hooks that come before a call, which is `depth` calls deep in its graph; gives its ticket."""
    number = next(numbers)
    ticket = torch.tensor(number)
    site = sites.get(int(key))
    if site is not None and site.plan.compiled.taps:
        given, rows = shown(structure, parts, kinds)
        args, kwargs = filled(structure, given, integers)
        running = here.running
        call = new_call(site.module(), site, next(site.count), args, kwargs)
        call.parent = above(running, depth)
        running.call = open_calls[number] = call
        tap = taps[call] = Tap(number, depth, ticket)
        if tap.of_pass != -1:  # a graph recomputes no more than it needs, so that a call may not end
            at_end_of_backward(Leaving(call, running))
        try:
            with showing(given, rows):
                for hook in site.plan.compiled.tapped_before:
                    hook(call)
        except BaseException as error:
            end_by(error, [call], running)
            raise
    return ticket


def ended(token: Tensor, ticket: Tensor, parts: list[Tensor], kinds: str, integers: list[int], structure: str) -> None:
    """Run the hooks that come after a call."""
    call = open_calls.pop(int(ticket), None)
    if call is None:
        return
    del taps[call]
    running = here.running
    leave(inside(call, running), running)
    running.call = call
    given, rows = shown(structure, parts, kinds)
    call.output = filled(structure, given, integers)
    around, running.output = running.output, Output(int(ticket), given)
    plan = call.names.plan  # type: ignore[attr-defined]
    always = iter(plan.compiled.tapped_always)
    try:
        with showing(given, rows):
            for hook in itertools.chain(plan.compiled.tapped_after, always):
                hook(call)
    except BaseException as error:
        finish(plan, call, always, error)
        raise
    finally:
        running.output, running.call = around, call.parent


def graded(ticket: Tensor, parts: list[Tensor], kind: str, place: int) -> None:
    """Show a gradient to those who wait for it."""
    output = awaiting.get(int(ticket))
    if output is None:
        return
    (gradient,), rows = unpacked(parts, kind)
    gradient = gradient.detach()
    with showing([gradient], rows):
        for see in output.sees.get(place, ()):
            see(gradient)


@contextmanager
def showing(tensors: list[Tensor], rows: list[list[Tensor] | None]) -> Iterator[None]:
    """While hooks look at tensors of a graph, which took the sums of some. Gradients are on, as they are outside of
    a graph."""
    running = here.running
    before = running.sums
    running.sums = {id(tensor): row for tensor, row in zip(tensors, rows, strict=True) if row is not None}
    try:
        with torch.enable_grad():
            yield
    finally:
        running.sums = before


def careful(graph: Callable[..., Any]) -> Callable[..., Any]:
    """A graph that sees to the calls that it began and did not end: when it raises they end by that, else they are let
    go of as soon as nobody has their tickets."""

    def run(*args: Any) -> Any:
        running = here.running
        around, running.graph = running.graph, next(numbers)
        try:
            output = graph(*args)
            for call in open_since(running.graph, running):
                leave_without_ticket(call, running)
        except BaseException as error:
            end_by(error, open_since(running.graph, running), running)
            raise
        finally:
            running.graph = around
        return output

    return run


def open_since(number: int, running: Running) -> list[Call]:
    """The innermost calls that run, down to the first that began before a number was given out."""
    found = []
    call = running.call
    while call is not None and call in taps and taps[call].number > number:
        found.append(call)
        call = call.parent
    return found


def inside(call: Call, running: Running) -> list[Call]:
    """The calls of graphs that are open inside of one."""
    found: list[Call] = []
    inner = running.call
    while inner is not None and inner is not call:
        found.append(inner)
        inner = inner.parent
    return found if inner is call else []


def end_by(error: BaseException, calls: Sequence[Call], running: Running) -> None:
    """End calls by an error, the innermost first: their `always` hooks run."""
    for call in calls:
        plan = call.names.plan  # type: ignore[attr-defined]
        finish(plan, call, plan.compiled.tapped_always, error)
    leave(calls, running)


class Leaving:
    """What lets go of a call when a backward pass is over: called at its end, or dropped where it raises."""

    __slots__ = ("call", "running")

    def __init__(self, call: Call, running: Running) -> None:
        self.call, self.running = call, running

    def __call__(self) -> None:
        """Let go of the call."""
        leave([self.call], self.running)

    __del__ = __call__


def leave_without_ticket(call: Call, running: Running) -> None:
    """Let go of a call once nobody has its ticket."""
    tap = taps[call]
    if isinstance(tap.ticket, Tensor):
        tap.ticket = weakref.ref(tap.ticket, partial(_gone, call, running))


def _gone(call: Call, running: Running, ticket: "weakref.ref[Tensor]") -> None:
    leave([call], running)


def forget(site: Any) -> None:
    """Let go of the calls of a module that graphs which raised have left open."""
    leave([call for call in [*taps] if call.names is site], here.running)


def leave(left: Sequence[Call], running: Running) -> None:
    """Let go of calls that did not end, wherever they stand among those that run, and of what they were given."""
    left = [call for call in left if call in taps]
    for call in left:
        del open_calls[taps.pop(call).number]
        call.args, call.kwargs = (), {}
    while running.call is not None and running.call in left:
        running.call = running.call.parent
    around = running.call
    while around is not None:
        while around.parent is not None and around.parent in left:
            around.parent = around.parent.parent
        around = around.parent


def above(running: Running, depth: int) -> Call | None:
    """The call that a new one at a depth of its graph runs inside of. One of the same graph that is as deep has ended,
    or will not, and is let go of: the model has handled an error, or a backward pass makes it again in part. The
    outermost calls of a graph run inside of whatever ran when it began."""
    left = []
    call = running.call
    while call is not None and call in taps:
        tap = taps[call]
        same = depth or 0 < running.graph < tap.number or tap.of_pass == current_backward_pass() != -1
        if not same or tap.depth < depth:
            break
        left.append(call)
        call = call.parent
    leave(left, running)
    return call


def shown(structure: str, parts: list[Tensor], kinds: str) -> tuple[list[Tensor], list[list[Tensor] | None]]:
    """The tensors as hooks see them, and what is known of each: those that require a gradient say so, although the
    graph's do not."""
    tensors, rows = unpacked(parts, kinds)
    marked = [tensor.detach().requires_grad_(flag) for tensor, flag in zip(tensors, flags(structure), strict=True)]
    return marked, rows


@lru_cache(maxsize=4096)
def parsed(structure: str) -> Any:
    """A structure as tuples; traced.py says what they are."""
    return ast.literal_eval(structure)


@lru_cache(maxsize=4096)
def flags(structure: str) -> tuple[bool, ...]:
    """For each tensor of a structure whether it requires a gradient."""
    found: list[bool] = []
    fill(parsed(structure), lambda part: found.append(part == "G"), lambda: 0)
    return tuple(found)


def filled(structure: str, tensors: list[Tensor], integers: list[int]) -> Any:
    """The value of a structure, with its tensors and whole numbers."""
    ahead, whole = iter(tensors), iter(integers)
    return fill(parsed(structure), lambda _: next(ahead), lambda: next(whole))


def fill(part: Any, tensor: Callable[[str], Any], integer: Callable[[], int]) -> Any:
    """A part of a structure with what these give in the places of tensors and whole numbers."""
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
    """Have the operators, and let graphs hold them. PyTorch's compiler is loaded by then; it costs a second or two."""
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
    for taps_call in (began, ended, graded, _show, _gone, Leaving.__call__):
        unseen(taps_call)
    return library
