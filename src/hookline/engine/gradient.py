"""The backward half of a call: the gradients of what a module gave and of what it was given, and the steps on them.

    forward     x ──▶ alias of x ──▶ module ──▶ y                an alias is `x.view_as(x)`: an edge of this call's own
    backward    x ◀── alias of x ◀── module ◀── y
                         │                     └─ all of y's gradient is here: backward_before steps
                         └─ the module's nodes are done, and its parameters' gradients: backward steps

Autograd runs the nodes that are ready latest-made first. The aliases of a call are older than all its nodes, so when
the first of them is due, every node of the module that will run has run. What is hooked is tensors, by hooks that refer
to no tensor: a graph that is dropped is freed at once.
"""

import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch._C._autograd import _get_sequence_nr
from torch._C._functorch import TransformType, peek_interpreter_stack
from torch.autograd import Variable
from torch.utils.hooks import unserializable_hook

from hookline.engine.call import Call
from hookline.engine.hook import Hook
from hookline.engine.nesting import FIRST, assigned, fill, pattern
from hookline.engine.notes import note_failure
from hookline.engine.plan import Plan
from hookline.errors import GradientError
from hookline.model.tensors import replaced, tensors

Gradient: TypeAlias = Tensor | None
Alias: TypeAlias = tuple[Tensor, Any, int]  # the alias, its autograd node, its version when the module got it
numbers = itertools.count()


class TensorHook(partial[Gradient]):
    """A tensor hook that PyTorch lets go without a warning when the tensor is pickled."""

    __torch_unserializable__ = True


def hook_gradient(tensor: Tensor, see: Callable[[Tensor], Gradient], *, first: bool = False) -> Any:
    """Call `see` with the gradient of a tensor that is no leaf, whenever a backward pass has all of it; what `see`
    gives takes the gradient's place. `first` puts it before the hooks that the tensor has. Gives the autograd node.

    This is `Tensor.register_hook` without the handle, which costs most of it.
    """
    hooks: Any = tensor._backward_hooks
    node = tensor.grad_fn
    if hooks is None and type(tensor) is Tensor:
        hooks = tensor._backward_hooks = OrderedDict()
        hooks[see] = see  # keyed by itself: PyTorch's own keys are numbers
        node._register_hook_dict(tensor)  # type: ignore[union-attr]
    elif hooks is None:
        tensor.register_hook(see)  # type: ignore[no-untyped-call]
    else:
        others = [*hooks.items()] if first else ()
        if first:
            hooks.clear()
        hooks[see] = see
        hooks.update(others)
    return node


def on_gradient(tensor: Tensor, see: Callable[[Gradient], None]) -> Callable[[], None] | None:
    """Call `see`, a new function that gives None, with the gradient of `tensor`, each time a backward pass has all of
    it.

    It adds no node to the graph and leaves the order in which gradients are summed as it is. An in-place operation
    afterwards does not move it: it stays with the value that the tensor has now. On a leaf, a parameter or an input
    that outlives the graph, it is called once and then gone, and what is given back is its undo. Where PyTorch has no
    gradient to give it gives None.
    """
    if not tensor.is_leaf:
        hook_gradient(tensor, unserializable_hook(see))  # type: ignore[no-untyped-call]
        return None

    @unserializable_hook  # type: ignore[untyped-decorator]
    def once(gradient: Gradient) -> None:
        handle.remove()
        see(gradient)

    handle = tensor.register_hook(once)  # type: ignore[no-untyped-call]
    return handle.remove  # type: ignore[no-any-return]


class Pass:
    """What one backward pass has brought to one call so far: its gradients, and the `Call` that its steps are given."""

    __slots__ = ("call", "done", "given", "late", "new", "output")

    def __init__(self, half: "BackwardHalf") -> None:
        self.call = half.origin.copy()
        self.call._without_tensors = half.origin
        self.output: list[Gradient] = [None] * half.outputs
        self.given: list[Gradient] = [None] * half.inputs
        self.new: list[Gradient] = self.given
        self.late: set[int] = set()  # inputs whose gradient has gone on already when the steps run
        self.done = False


class BackwardHalf:
    """What a call with backward steps leaves behind in the graph. It refers to no tensor."""

    __slots__ = (
        "__weakref__",
        "args",
        "inputs",
        "kwargs",
        "number",
        "origin",
        "output",
        "outputs",
        "passes",
        "plan",
        "since",
    )

    def __init__(self, plan: Plan, call: Call) -> None:
        transform = peek_interpreter_stack()
        if transform is not None and transform.key() == TransformType.Vmap:
            raise GradientError(
                "backward steps see no gradients inside of torch.vmap: let vmap stand around torch.func.grad, or call "
                "the model under torch.no_grad()"
            )
        self.plan = plan
        self.origin = call.without_tensors()
        self.number = next(numbers)
        self.since = _get_sequence_nr()
        self.passes: dict[int, Pass] = {}
        self.args: Any = ()
        self.kwargs: Any = {}
        self.output: Any = None
        self.inputs = self.outputs = 0

    # Forward

    def of_inputs(self, call: Call) -> list[Alias]:
        """Give the module aliases of those arguments that gradients flow to; these aliases."""
        args, kwargs = call.args, call.kwargs
        if len(args) == 1 and type(args[0]) is Tensor and not kwargs:
            if not args[0].requires_grad:
                self.args = (None,)
                return []
            self.args, self.inputs = (FIRST,), 1
            alias = args[0].view_as(args[0])
            call.args = (alias,)
            return [(alias, hook_gradient(alias, self._only_input), alias._version)]

        found = {id(tensor): tensor for _, tensor in tensors((args, kwargs)) if tensor.requires_grad}
        places = {key: place for place, key in enumerate(found)}
        self.args, self.kwargs, self.inputs = pattern(args, places), pattern(kwargs, places), len(found)
        aliases = [tensor.view_as(tensor) for tensor in found.values()]
        if len(found) == 1:
            nodes = [hook_gradient(aliases[0], self._only_input)]
        else:  # a second set of aliases sees every gradient before the first, which is older, lets one go on
            for place, alias in enumerate(aliases):
                hook_gradient(alias, TensorHook(self._let_go, place))
            aliases = [alias.view_as(alias) for alias in aliases]
            nodes = [hook_gradient(alias, TensorHook(self._see_input, place)) for place, alias in enumerate(aliases)]

        by_id = dict(zip(found, aliases, strict=True))
        call.args = replaced(args, lambda tensor: by_id.get(id(tensor), tensor))
        call.kwargs = replaced(kwargs, lambda tensor: by_id.get(id(tensor), tensor))
        return [(alias, node, alias._version) for alias, node in zip(aliases, nodes, strict=True)]

    def of_output(self, call: Call, aliases: list[Alias]) -> None:
        """See to the gradients of what the module gave, and of arguments that it changed in place."""
        for place, (alias, node, version) in enumerate(aliases):
            if alias._version != version:
                self._follow(place, alias, node)

        output = call.output
        if type(output) is Tensor:
            if output.requires_grad:
                call.output = self._hook_only(output)
                self.output, self.outputs = FIRST, 1
            return
        found = {id(tensor): tensor for _, tensor in tensors(output) if tensor.requires_grad}
        self.output = pattern(output, {key: place for place, key in enumerate(found)})
        self.outputs = len(found)
        if not found:
            return
        given = Gate.apply(self, *found.values()) if len(found) > 1 else [self._hook_only(*found.values())]  # type: ignore[no-untyped-call]
        by_id = dict(zip(found, given, strict=True))
        call.output = replaced(output, lambda tensor: by_id.get(id(tensor), tensor))

    def _hook_only(self, output: Tensor) -> Tensor:
        if output.is_leaf:
            output = output.view_as(output)  # a leaf keeps its hooks for good
        hook_gradient(output, self._only_output, first=True)
        return output

    def _follow(self, place: int, alias: Tensor, node: Any) -> None:
        """The module changed an argument in place: what was its value flows on from the first node that did so."""
        base = alias._base
        change, first = None if base is None else base.grad_fn, None
        while change is not None and "CopySlices" in change.name() and change._sequence_nr() >= self.since:
            first, change = change, change.next_functions[0][0]
        if first is not None and base is not None:
            whole = alias.shape == base.shape and alias.stride() == base.stride()
            region = None if whole else (alias.shape, alias.stride(), alias.storage_offset() - base.storage_offset())
            first.register_hook(TensorHook(self._changed_input, place, region, node))

    # Backward

    def _pass(self) -> Pass:
        task = torch._C._current_graph_task_id()
        found = self.passes.get(task)
        if found is None:
            found = self.passes[task] = Pass(self)
            at_the_end_of(task, self)
        return found

    @unserializable_hook  # type: ignore[untyped-decorator]
    def _only_output(self, gradient: Gradient) -> Gradient:
        now = self._pass()
        now.output[0] = gradient
        return self._before(now)[0] if self.plan.backward_before else None

    def _before(self, now: Pass) -> list[Gradient]:
        """Run the `backward_before` steps; the gradients of the outputs that they leave."""
        now.call.grad_output = fill(self.output, now.output)
        self._run(self.plan.backward_before, now.call)
        now.output = assigned("grad_output", self.output, now.call.grad_output, now.output)
        return now.output

    @unserializable_hook  # type: ignore[untyped-decorator]
    def _only_input(self, gradient: Gradient) -> Gradient:
        self._see_input(0, gradient)
        return self._let_go(0, gradient)

    def _see_input(self, place: int, gradient: Gradient) -> None:
        given = self._pass().given
        part = given[place]
        given[place] = gradient if part is None or gradient is None else part + gradient

    def _let_go(self, place: int, gradient: Gradient) -> Gradient:
        now = self._pass()
        self._finish(now)
        return None if now.new[place] is now.given[place] else now.new[place]

    def _changed_input(self, place: int, region: Any, node: Any, inner: Any, outer: Any) -> Any:
        """The gradient of an argument as it was before the module changed it. Where it is the only one, and nothing
        used the argument before, it is all there is."""
        if inner[0] is None:
            return None
        now = self._pass()
        self._see_input(place, inner[0] if region is None else inner[0].as_strided(*region))
        if self.inputs > 1 or torch._C._will_engine_execute_node(node):
            now.late.add(place)
            return None
        new = self._let_go(0, None)
        if new is None:
            return None
        if region is None:
            return new, *inner[1:]
        whole = inner[0].clone()
        whole.as_strided(*region).copy_(new)
        return whole, *inner[1:]

    def _finish(self, now: Pass) -> None:
        """Run the `backward` steps, once in a pass."""
        if now.done:
            return
        now.done = True
        call = now.call
        if call.grad_output is None:
            call.grad_output = fill(self.output, now.output)
        call.grad_input, call.grad_kwargs = fill(self.args, now.given), fill(self.kwargs, now.given)
        self._run(self.plan.backward, call)
        new = assigned("grad_input", self.args, call.grad_input, now.given)
        now.new = assigned("grad_kwargs", self.kwargs, call.grad_kwargs, new)
        for place in now.late:
            if now.new[place] is not now.given[place]:
                raise GradientError(
                    f"a backward step assigned the gradient of an argument of {call.path or 'the model'} that has gone "
                    "on already, because the module changes that argument in place; use backward_before, or a step on "
                    "the module that made it"
                )

    def _run(self, hooks: tuple[Hook, ...], call: Call) -> None:
        for hook in hooks:
            if hook.active:
                try:
                    hook.step(call)
                except BaseException as error:
                    note_failure(error, call, hook)
                    raise

    def end(self, task: int) -> None:
        """The pass is over: run what no gradient of an input has set off."""
        now = self.passes.pop(task, None)
        if now is not None:
            now.late.update(range(self.inputs))
            self._finish(now)


class Gate(torch.autograd.Function):
    """One node for all the outputs of a call, which has the gradients of all of them before any flows on. Its outputs
    are no views, so that they may be changed in place; they share their version with what they stand for."""

    @staticmethod
    def forward(ctx: Any, half: BackwardHalf, *outputs: Tensor) -> Any:
        """The outputs, each as another tensor on the same memory."""
        ctx.set_materialize_grads(False)
        ctx.half = half
        return tuple(output.detach() for output in outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Gradient) -> Any:
        """The gradients of all outputs, as the steps leave them."""
        half = ctx.half
        now = half._pass()
        now.output = [*gradients]
        return None, *(half._before(now) if half.plan.backward_before else gradients)


# The end of a pass

_waiting: dict[int, list[weakref.ref[BackwardHalf]]] = {}


def at_the_end_of(task: int, half: BackwardHalf) -> None:
    """Have `half.end(task)` called when this backward pass is through, the inner of two calls before the outer."""
    if task not in _waiting:
        for stale in [task for task, halves in _waiting.items() if not any(half() for half in halves)]:
            del _waiting[stale]  # of a pass that an error ended
        _waiting[task] = []
        Variable._execution_engine.queue_callback(partial(_end, task))
    _waiting[task].append(weakref.ref(half))


def _end(task: int) -> None:
    halves = [half for reference in _waiting.pop(task, ()) if (half := reference()) is not None]
    for half in sorted(halves, key=lambda half: half.number, reverse=True):
        half.end(task)
