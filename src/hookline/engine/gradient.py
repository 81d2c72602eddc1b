"""The wiring of a call's gradients: hooks on tensors that lead the gradients of its inputs and outputs to its hooks.

    forward     x ──▶ alias of x ──▶ module ──▶ y                an alias is `x[...]`: an edge of this call's own
    backward    x ◀── alias of x ◀── module ◀── y
                         │                     └─ all of y's gradient is here: backward_before hooks
                         └─ the module's nodes are done, and its parameters' gradients: backward hooks

Autograd runs the nodes that are ready latest-made first. The aliases of a call are older than all its nodes, so when
the first of them is due, every node of the module that will run has run. What is hooked is tensors, by hooks that refer
to no tensor: a graph that is dropped is freed at once.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookline.engine.backward_pass import CallGradients
from hookline.engine.call import Call
from hookline.engine.nested_gradients import FIRST, ONE, Places
from hookline.engine.plan import Plan
from hookline.engine.tensor_hooks import Gradient, TensorHook, alias_of, hook_at, hook_gradient, hook_new
from hookline.errors import GradientError
from hookline.model.tensors import Change, exchange_back, memory_of
from hookline.torch_private import (
    FakeTensor,
    TransformType,
    peek_interpreter_stack,
    unserializable_hook,
    will_run_node,
)

Alias: TypeAlias = tuple[int, Tensor, Any, int]  # its place, itself, its autograd node, its version as it was given


class GradientWiring(CallGradients):
    """The gradients of one call, and the hooks on tensors that lead them here."""

    changes: list[Change] | None = None  # in containers that the caller passed, until the module has run
    restored: Sequence[Tensor] = ()

    # Forward

    def of_inputs(self, call: Call) -> Iterable[Alias]:
        """Give the module aliases of those arguments that gradients flow to; these aliases."""
        args, kwargs = call.args, call.kwargs
        if len(args) == 1 and not kwargs:
            (x,) = args
            if type(x) is Tensor and x.requires_grad:
                self.args, self.inputs = ONE, 1
                alias = alias_of(x)
                call.args = (alias,)
                return ((0, alias, hook_new(alias, self._only_input), alias._version),)

        refuse_vmap()
        self.changes = []
        places = Places()
        self.args = places.pattern(args)
        if kwargs:
            self.kwargs = places.pattern(kwargs)
        if not places.tensors:
            return ()
        self.inputs = len(places.tensors)
        aliases = [alias_of(tensor) for tensor in places.tensors]
        if self.inputs == 1:
            nodes = [hook_new(aliases[0], self._only_input)]
        else:  # a second set of aliases sees every gradient before the first, which is older, lets one go on
            for place, alias in enumerate(aliases):
                hook_new(alias, TensorHook(self._release_input, place))
            aliases = [alias_of(alias) for alias in aliases]
            nodes = [hook_new(alias, TensorHook(self._see_input, place)) for place, alias in enumerate(aliases)]

        call.args = places.exchange(args, aliases, self.changes)
        if kwargs:
            call.kwargs = {name: places.exchange(value, aliases, self.changes) for name, value in kwargs.items()}
        alias_nodes = zip(aliases, nodes, strict=True)
        return [(place, alias, node, alias._version) for place, (alias, node) in enumerate(alias_nodes)]

    def restore_after(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The output of the module; containers that it was given hold afterwards what they held, less its changes."""
        changes = self.changes or []
        self.restored = [before for _, _, before, _ in changes]
        try:
            return inner(*args, **kwargs)
        finally:
            exchange_back(changes)

    def of_output(self, call: Call, aliases: Iterable[Alias]) -> None:
        """See to the gradients of what the module gave, and of arguments that it changed in place."""
        for place, alias, node, version in aliases:
            if alias._version != version:
                self._follow(place, alias, node)

        output = call.output
        if type(output) is Tensor:
            node = output.grad_fn
            if node is None and not output.requires_grad:
                return
            self.output, self.outputs = FIRST, 1
            if node is None or output._backward_hooks is not None:
                call.output = self._hook_only(output)
            else:
                hook_at(node, output, self._only_output)
            return
        places = Places(without=self.restored)
        self.restored = ()
        self.output = places.pattern(output)
        self.outputs = len(places.tensors)
        if self.outputs == 1:
            call.output = places.exchange(output, [self._hook_only(places.tensors[0])], [])
        elif self.outputs:
            call.output = places.exchange(output, self._pass_together(places.tensors, aliases), [])

    def _hook_only(self, output: Tensor) -> Tensor:
        hooks: Any = output._backward_hooks
        if output.is_leaf or (hooks and self._is_older(hooks)):
            output = alias_of(output)  # a leaf, and what the module keeps and gives again, would keep the hooks
        hook_gradient(output, self._only_output, first=True)
        return output

    def _is_older(self, hooks: dict[Any, Any]) -> bool:
        """Whether a tensor with these hooks was given by an earlier call, which is none that ran inside this one."""
        owners = [getattr(hook, "__self__", None) for hook in hooks.values()]
        return any(isinstance(owner, GradientWiring) and self.origin not in owner.origin.around() for owner in owners)

    def _pass_together(self, outputs: list[Tensor], aliases: Iterable[Alias]) -> list[Tensor]:
        """The outputs behind one node, which sees what comes from outside alone; those that share their memory with
        another or with an input, whose changes in place autograd must see there too, with a hook each."""
        apart = places_apart(outputs, {plain_memory_of(alias) for _, alias, _, _ in aliases})
        given = list(outputs)
        if apart:
            passed = Gate.apply(self, tuple(apart), *(outputs[place] for place in apart))  # type: ignore[no-untyped-call]
            for place, output in zip(apart, passed, strict=True):
                given[place] = output
        for place in {*range(len(outputs))}.difference(apart):
            if given[place].is_leaf:
                given[place] = alias_of(given[place])
            hook_gradient(given[place], TensorHook(self._see_output, place), first=True)
        return given

    def _follow(self, place: int, alias: Tensor, node: Any) -> None:
        """The module changed an argument in place: what was its value flows on from the first node that did so."""
        base = alias._base
        if base is None or base.dtype != alias.dtype:  # as of a real view of a complex tensor: its gradient is not seen
            return
        change, first = base.grad_fn, None
        while change is not None and "CopySlices" in change.name() and change._sequence_nr() > node._sequence_nr():
            first, change = change, change.next_functions[0][0]
        if first is not None:
            whole = alias.shape == base.shape and alias.stride() == base.stride()
            region = None if whole else (alias.shape, alias.stride(), alias.storage_offset() - base.storage_offset())
            first.register_hook(TensorHook(self._changed_input, place, region, node))

    # Backward

    @unserializable_hook  # type: ignore[untyped-decorator]
    def _only_output(self, gradient: Gradient) -> Gradient:
        now = self.running_pass()
        now.see_output(0, gradient)
        return now.run_backward_before(self, (0,))[0] if self.plan.backward_before else None

    def _see_output(self, place: int, gradient: Gradient) -> None:
        self.running_pass().see_output(place, gradient)

    @unserializable_hook  # type: ignore[untyped-decorator]
    def _only_input(self, gradient: Gradient) -> Gradient:
        now = self.running_pass()
        now.see_input(0, gradient)
        return now.release(self, 0)

    def _see_input(self, place: int, gradient: Gradient) -> None:
        self.running_pass().see_input(place, gradient)

    def _release_input(self, place: int, gradient: Gradient) -> Gradient:
        return self.running_pass().release(self, place)

    def _changed_input(self, place: int, region: Any, node: Any, inner: Any, outer: Any) -> Any:
        """The gradient of an argument as it was before the module changed it. Where it is the only one, and nothing
        used the argument before, it is all there is."""
        if inner[0] is None:
            return None
        now = self.running_pass()
        now.begun = True  # what the module made of the argument is an output of it too
        now.see_input(place, inner[0] if region is None else inner[0].as_strided(*region))
        if self.inputs > 1 or will_run_node(node):
            now.late = (*now.late, place)
            return None
        new = now.release(self, 0)
        if new is None:
            return None
        if region is None:
            return new, *inner[1:]
        whole = inner[0].clone()
        whole.as_strided(*region).copy_(new)
        return whole, *inner[1:]


def wire_gradients(plan: Plan, call: Call) -> GradientWiring:
    """The wiring of a call that begins."""
    wiring = GradientWiring()
    wiring.plan = plan
    wiring.origin = call._origin or call.origin()
    return wiring


def places_apart(outputs: list[Tensor], taken: set[int | None]) -> list[int]:
    """The places of those outputs that a change in place of another, or of what is in the `taken` memory, leaves as
    they are."""
    by_memory: dict[int | None, list[int]] = {}
    for place, output in enumerate(outputs):
        by_memory.setdefault(plain_memory_of(output), []).append(place)
    groups = [places for memory, places in by_memory.items() if memory is not None and memory not in taken]
    return sorted(place for places in groups if are_disjoint([outputs[place] for place in places]) for place in places)


def are_disjoint(tensors: list[Tensor]) -> bool:
    """Whether tensors in one memory have no element in common, as far as that is to be seen at once: parts that one
    operation made (split, chunk, unbind), or stretches that follow each other."""
    if len({tensor.grad_fn for tensor in tensors}) == 1:
        return True
    starts = [tensor.storage_offset() for tensor in tensors]
    lasts = [
        start + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        for start, tensor in zip(starts, tensors, strict=True)
    ]
    stretches = sorted(zip(starts, lasts, strict=True))
    return all(last < start for (_, last), (start, _) in pairwise(stretches))


def plain_memory_of(tensor: Tensor) -> int | None:
    """What tells the memory of a tensor from others'; None where it has none of the plain kind."""
    plain = type(tensor) in (Tensor, FakeTensor) and tensor.layout is torch.strided and not tensor.is_nested
    return memory_of(tensor) if plain else None


class Gate(torch.autograd.Function):
    """One node for several outputs of a call, which has the gradients of all of them before any flows on. Its outputs
    are no views, so that they may be changed in place; they share their version with what they stand for."""

    generate_vmap_rule = True

    @staticmethod
    def forward(wiring: GradientWiring, places: tuple[int, ...], *outputs: Tensor) -> Any:
        """The outputs, each as another tensor on the same memory."""
        return tuple(output.detach() for output in outputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep what belongs to the call; leave gradients that do not come out."""
        ctx.wiring, ctx.places, *_ = inputs
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Gradient) -> Any:
        """The gradients of all outputs, as the hooks leave them."""
        wiring, places = ctx.wiring, ctx.places
        now = wiring.running_pass()
        now.begun = True
        for place, gradient in zip(places, gradients, strict=True):
            now.output[place] = gradient
        left = now.run_backward_before(wiring, places) if wiring.plan.backward_before else now.output
        return None, None, *(left[place] for place in places)

    @staticmethod
    def jvp(ctx: Any, wiring: Any, places: Any, *tangents: Any) -> Any:
        """Forward mode: what it is without."""
        return tuple(tangent if tangent is None else tangent.view_as(tangent) for tangent in tangents)


def refuse_vmap() -> None:
    """GradientError inside `torch.vmap`, where no tensor tells that gradients flow to it."""
    transform = peek_interpreter_stack()
    if transform is not None and transform.key() == TransformType.Vmap:
        raise GradientError(
            "backward hooks see no gradients inside torch.vmap: let vmap stand around torch.func.grad, or call the "
            "model under torch.no_grad()"
        )
