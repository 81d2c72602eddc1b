"""The calls that compiled graphs have begun. A graph refers to them by numbers, since it holds only tensors.

A graph refers to a hooked module by its key and to a call by its ticket. The parent of a call follows from the depths
in the graph. A call ends when the graph reaches its tap. If the graph raises, it ends the calls that it began
(`end_by`). If the code broke the graph inside a call, the code between the graphs holds the ticket, and the call is
dropped when the ticket is gone. Calls that a backward pass recomputes, perhaps in part, are dropped when it is over.
"""

import itertools
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from hookline.engine.call import Call, Running, SeeGradient
from hookline.engine.run import finish
from hookline.torch_private import current_backward_pass, disable_current_modes

if TYPE_CHECKING:
    from hookline.engine.hook import Hook


class GraphCall(Call):
    """A call in a compiled graph.

    - `number`: its number; `depth`: its depth in the graph;
    - `of_pass`: the backward pass that makes the call, or -1;
    - `ticket`: its ticket; once its graph has run, a weak reference to the ticket.
    """

    __slots__ = ("_shown", "depth", "number", "of_pass", "ticket")

    _shown: "ShownTensors | None"
    number: int
    depth: int
    of_pass: int
    ticket: Tensor | weakref.ref[Tensor]


class ShownTensors:
    """The tensors that a graph shows to hooks, with their sums and the functions that wait for gradients of outputs."""

    __slots__ = ("places", "sees", "sums", "ticket")

    def __init__(self, tensors: Sequence[Tensor], sums: Sequence[list[Tensor] | None], ticket: int = 0) -> None:
        self.sums = {id(tensor): row for tensor, row in zip(tensors, sums, strict=True) if row is not None}
        self.places = {id(tensor): place for place, tensor in enumerate(tensors)} if ticket else {}
        self.ticket = ticket
        self.sees: dict[int, list[SeeGradient]] = {}

    def on_gradient(self, tensor: Tensor, see: SeeGradient) -> Callable[[], None]:
        """Call `see` with the gradient of an output tensor, and with what the graph shows of it; returns the undo.
        Tensors outside the output have no gradient here."""
        place = self.places.get(id(tensor))
        if place is None:
            return lambda: None
        self.sees.setdefault(place, []).append(see)
        awaiting = graph_calls.awaiting
        awaiting[self.ticket] = self

        def undo() -> None:
            awaiting.pop(self.ticket, None)

        return undo


class GraphCalls:
    """The modules and the calls that compiled graphs refer to.

    - `numbers`: the numbers for keys and tickets; `sites`: the sites of hooked modules, by key;
    - `without_keys`: hooks whose modules get their keys when a graph is made;
    - `open`: the calls that have begun and not ended, by number;
    - `awaiting`: the shown tensors with functions that wait for gradients, by number of the call.
    """

    __slots__ = ("awaiting", "numbers", "open", "sites", "without_keys")

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.sites: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self.without_keys: weakref.WeakSet[Hook] = weakref.WeakSet()
        self.open: dict[int, GraphCall] = {}
        self.awaiting: dict[int, ShownTensors] = {}

    def give_keys(self) -> None:
        """Give each hooked module without a key one: a number in a tensor."""
        with suppress(KeyError):  # none is left
            while True:
                for module in self.without_keys.pop().paths:
                    namespace = module.__dict__
                    site: Any = namespace.get("_hookline", namespace.get("_compiled_call_impl"))
                    if getattr(site, "key", 0) is None:
                        number = next(self.numbers)
                        self.sites[number] = site
                        with disable_current_modes():
                            site.key = torch.tensor(number, device="cpu")

    def begin(self, call: GraphCall, number: int, depth: int, ticket: Tensor) -> None:
        """Register a call that begins."""
        call.number, call.depth, call.of_pass, call.ticket = number, depth, current_backward_pass(), ticket
        call._shown = None
        self.open[number] = call

    def end(self, number: int) -> GraphCall | None:
        """The call that ends; None if it was dropped."""
        return self.open.pop(number, None)

    def is_open(self, call: Call | None) -> TypeGuard[GraphCall]:
        """Whether a call is in a graph and has not ended."""
        return isinstance(call, GraphCall) and call.number in self.open

    def end_by(self, error: BaseException, calls: Sequence[Call], running: Running) -> None:
        """End calls with an error, the innermost first: their `always` hooks run."""
        for call in calls:
            plan = call.names.plan  # type: ignore[attr-defined]
            finish(plan, call, plan.compiled.tapped_always, error)
        self.drop(calls, running)

    def drop(self, calls: Sequence[Call], running: Running) -> None:
        """Forget calls that did not end, and their arguments, wherever they are among the running calls."""
        dropped = [call for call in calls if self.is_open(call)]
        for call in dropped:
            del self.open[call.number]
            call.args, call.kwargs = (), {}
        while running.call is not None and running.call in dropped:
            running.call = running.call.parent
        around = running.call
        while around is not None:
            while around.parent is not None and around.parent in dropped:
                around.parent = around.parent.parent
            around = around.parent

    def drop_without_ticket(self, call: GraphCall, running: Running) -> None:
        """Forget a call once its ticket is gone."""
        if isinstance(call.ticket, Tensor):
            call.ticket = weakref.ref(call.ticket, partial(self._gone, call, running))

    def _gone(self, call: Call, running: Running, ticket: "weakref.ref[Tensor]") -> None:
        self.drop([call], running)

    def drop_of(self, site: Any, running: Running) -> None:
        """Forget the calls of a module that graphs left open by raising."""
        self.drop([call for call in [*self.open.values()] if call.names is site], running)

    def open_since(self, number: int, running: Running) -> list[GraphCall]:
        """The innermost running calls, up to the first with a smaller number."""
        found: list[GraphCall] = []
        call = running.call
        while self.is_open(call) and call.number > number:
            found.append(call)
            call = call.parent
        return found

    def above(self, running: Running, depth: int) -> Call | None:
        """The parent of a new call at this depth of its graph.

        A running call of the same graph with the same depth or more will not end, and is dropped: the model has handled
        an error, or a backward pass recomputes the call in part. The parent of a graph's outermost calls is the call
        that was running when the graph began.
        """
        dropped = []
        call = running.call
        while self.is_open(call):
            same = depth or 0 < running.graph < call.number or call.of_pass == current_backward_pass() != -1
            if not same or call.depth < depth:
                break
            dropped.append(call)
            call = call.parent
        self.drop(dropped, running)
        return call


class DropAtEnd:
    """Forgets a call when a backward pass is over: called at its end, or deleted if it raises."""

    __slots__ = ("call", "registry", "running")

    def __init__(self, registry: GraphCalls, call: Call, running: Running) -> None:
        self.registry, self.call, self.running = registry, call, running

    def __call__(self) -> None:
        """Forget the call."""
        self.registry.drop([self.call], self.running)

    __del__ = __call__


def inside(call: Call, running: Running) -> list[Call]:
    """The calls that run inside one."""
    found: list[Call] = []
    inner = running.call
    while inner is not None and inner is not call:
        found.append(inner)
        inner = inner.parent
    return found if inner is call else []


graph_calls = GraphCalls()
