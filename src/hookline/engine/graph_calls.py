"""The calls that compiled graphs have begun: what a graph refers to by numbers, since it holds tensors only.

A graph knows a hooked module by its key and a call by its ticket. Which call another runs inside is known from their
depths in the graph. A call ends when its tap is reached. If the graph raises, it ends the calls that it began
(`end_by`). If the code broke the graph inside a call, the call is dropped when its ticket is gone, which the code
between the graphs holds. Calls that a backward pass makes again, in part perhaps, are dropped when that pass is over.
"""

import itertools
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hookline.engine.call import Call, Running
from hookline.engine.run import finish
from hookline.torch_private import current_backward_pass, disable_current_modes

if TYPE_CHECKING:
    from hookline.engine.hook import Hook

See = Callable[[Tensor], Any]


class Tap:
    """What is known of an open call besides.

    - `number`: the call's own; `depth`: how deep in its graph it is;
    - `of_pass`: the backward pass that makes it, or -1;
    - `ticket`: its ticket; once its graph has run a weak reference to it.
    """

    __slots__ = ("depth", "number", "of_pass", "ticket")

    def __init__(self, number: int, depth: int, ticket: Tensor) -> None:
        self.number, self.depth, self.of_pass = number, depth, current_backward_pass()
        self.ticket: Tensor | weakref.ref[Tensor] = ticket


class Output:
    """The output of one call, while its hooks read it: who wants the gradient of which of its tensors."""

    __slots__ = ("places", "registry", "sees", "ticket")

    def __init__(self, registry: "GraphCalls", ticket: int, tensors: list[Tensor]) -> None:
        self.registry = registry
        self.ticket = ticket
        self.places = {id(tensor): place for place, tensor in enumerate(tensors)}
        self.sees: dict[int, list[See]] = {}

    def on_gradient(self, tensor: Tensor, see: See) -> Callable[[], None]:
        """Call `see` with the gradient of a tensor of the output; returns the undo."""
        place = self.places.get(id(tensor), -1)
        self.sees.setdefault(place, []).append(see)
        awaiting = self.registry.awaiting
        awaiting[self.ticket] = self

        def undo() -> None:
            awaiting.pop(self.ticket, None)

        return undo


class GraphCalls:
    """The modules and the calls that compiled graphs refer to.

    - `numbers`: of keys and tickets; `sites`: of hooked modules, by key;
    - `without_keys`: hooks whose modules get their keys when a graph is made;
    - `open`: the calls that have begun and not ended, by number; `taps`: what is known of each besides;
    - `awaiting`: who waits for the gradients of a call, by its number.
    """

    __slots__ = ("awaiting", "numbers", "open", "sites", "taps", "without_keys")

    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.sites: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self.without_keys: weakref.WeakSet[Hook] = weakref.WeakSet()
        self.open: dict[int, Call] = {}
        self.taps: dict[Call, Tap] = {}
        self.awaiting: dict[int, Output] = {}

    def give_keys(self) -> None:
        """Give each hooked module that has none its key: a number in a tensor."""
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

    def begin(self, call: Call, number: int, depth: int, ticket: Tensor) -> Tap:
        """Note a call that begins."""
        self.open[number] = call
        tap = self.taps[call] = Tap(number, depth, ticket)
        return tap

    def end(self, number: int) -> Call | None:
        """The call that ends; None where it was dropped."""
        call = self.open.pop(number, None)
        if call is not None:
            del self.taps[call]
        return call

    def end_by(self, error: BaseException, calls: Sequence[Call], running: Running) -> None:
        """End calls by an error, the innermost first: their `always` hooks run."""
        for call in calls:
            plan = call.names.plan  # type: ignore[attr-defined]
            finish(plan, call, plan.compiled.tapped_always, error)
        self.drop(calls, running)

    def drop(self, calls: Sequence[Call], running: Running) -> None:
        """Forget calls that did not end, wherever they are among those that run, and their arguments."""
        dropped = [call for call in calls if call in self.taps]
        for call in dropped:
            del self.open[self.taps.pop(call).number]
            call.args, call.kwargs = (), {}
        while running.call is not None and running.call in dropped:
            running.call = running.call.parent
        around = running.call
        while around is not None:
            while around.parent is not None and around.parent in dropped:
                around.parent = around.parent.parent
            around = around.parent

    def drop_without_ticket(self, call: Call, running: Running) -> None:
        """Forget a call once its ticket is gone."""
        tap = self.taps[call]
        if isinstance(tap.ticket, Tensor):
            tap.ticket = weakref.ref(tap.ticket, partial(self._gone, call, running))

    def _gone(self, call: Call, running: Running, ticket: "weakref.ref[Tensor]") -> None:
        self.drop([call], running)

    def drop_of(self, site: Any, running: Running) -> None:
        """Forget the calls of a module that graphs which raised have left open."""
        self.drop([call for call in [*self.taps] if call.names is site], running)

    def open_since(self, number: int, running: Running) -> list[Call]:
        """The innermost calls that run, out to the first that began before a number was given out."""
        found = []
        call = running.call
        while call is not None and call in self.taps and self.taps[call].number > number:
            found.append(call)
            call = call.parent
        return found

    def above(self, running: Running, depth: int) -> Call | None:
        """The call that a new one at a depth of its graph runs inside.

        One of the same graph that is as deep has ended, or will not end, and is dropped: the model has handled an
        error, or a backward pass makes it again in part. The outermost calls of a graph run inside whatever ran when it
        began.
        """
        dropped = []
        call = running.call
        while call is not None and call in self.taps:
            tap = self.taps[call]
            same = depth or 0 < running.graph < tap.number or tap.of_pass == current_backward_pass() != -1
            if not same or tap.depth < depth:
                break
            dropped.append(call)
            call = call.parent
        self.drop(dropped, running)
        return call


class DropAtEnd:
    """Forgets a call when a backward pass is over: called at its end, or dropped where it raises."""

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
