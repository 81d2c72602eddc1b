"""Wire the gradients of a call: tensor hooks pass the gradients of its inputs and outputs to its backward hooks.

    forward     x ──▶ alias of x ──▶ module ──▶ y                an alias is `x[...]`: an edge of this call alone
    backward    x ◀── alias of x ◀── module ◀── y
                         │                     └─ y's gradient is complete: backward_before hooks
                         └─ the module's nodes have run, its parameters have their gradients: backward hooks

Of the nodes that are ready, autograd runs the newest first. The aliases of a call are older than all its other nodes,
so when the first of them runs, every node of the module that will run has run. The hooks are on tensors and refer to
no tensor, so a dropped graph is freed at once.
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

Alias: TypeAlias = tuple[int, Tensor, Any, int]  # its place, itself, its autograd node, its version as passed


class GradientWiring(CallGradients):
    """The gradients of one call, and the tensor hooks that pass them here."""

    changes: list[Change] | None = None  # in the caller's containers, until the module has run
    restored: Sequence[Tensor] = ()

    # Forward

    def of_inputs(self, call: Call) -> Iterable[Alias]:
        """Replace the arguments that require a gradient by aliases; returns the aliases."""
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
        else:  # a second, newer set of aliases sees all gradients before the first set passes one on
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
        """The output of the module. Afterwards its containers hold what they held before, but for its own changes."""
        changes = self.changes or []
        self.restored = [before for _, _, before, _ in changes]
        try:
            return inner(*args, **kwargs)
        finally:
            exchange_back(changes)

    def of_output(self, call: Call, aliases: Iterable[Alias]) -> None:
        """Wire the gradients of the outputs, and of arguments that the module changed in place."""
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
            output = alias_of(output)  # a leaf, or an output that the module returns again later, would keep the hooks
        hook_gradient(output, self._only_output, first=True)
        return output

    def _is_older(self, hooks: dict[Any, Any]) -> bool:
        """Whether a tensor with these hooks was returned by an earlier call that did not run inside this one."""
        owners = [getattr(hook, "__self__", None) for hook in hooks.values()]
        return any(isinstance(owner, GradientWiring) and self.origin not in owner.origin.around() for owner in owners)

    def _pass_together(self, outputs: list[Tensor], aliases: Iterable[Alias]) -> list[Tensor]:
        """The outputs behind one node, which sees only gradients from outside. Outputs that share memory with each
        other or with an input get a hook each: autograd must see there that one is changed in place."""
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
        """Hook an argument that the module changed in place: its old value's gradient passes the first such node."""
        base = alias._base
        if base is None or base.dtype != alias.dtype:  # such as a real view of a complex tensor: gradient not seen
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
        """Receive the gradient of an argument as it was before the module changed it. If it is the only argument, and
        nothing used it before the change, this is its whole gradient."""
        if inner[0] is None:
            return None
        now = self.running_pass()
        now.begun = True  # the changed argument is an output of the module too
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
    """The wiring of a new call."""
    wiring = GradientWiring()
    wiring.plan = plan
    wiring.origin = call._origin or call.origin()
    return wiring


def places_apart(outputs: list[Tensor], taken: set[int | None]) -> list[int]:
    """The places of the outputs that do not change when another one, or a tensor in the `taken` memory, is changed in
    place."""
    by_memory: dict[int | None, list[int]] = {}
    for place, output in enumerate(outputs):
        by_memory.setdefault(plain_memory_of(output), []).append(place)
    groups = [places for memory, places in by_memory.items() if memory is not None and memory not in taken]
    return sorted(place for places in groups if are_disjoint([outputs[place] for place in places]) for place in places)


def are_disjoint(tensors: list[Tensor]) -> bool:
    """Whether tensors in one memory share no element, by a quick test: they are parts from one operation (split, chunk,
    unbind), or consecutive ranges. False if the test does not show it."""
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
    """The identity of a tensor's memory; None for tensors that are not plain and strided."""
    plain = type(tensor) in (Tensor, FakeTensor) and tensor.layout is torch.strided and not tensor.is_nested
    return memory_of(tensor) if plain else None


class Gate(torch.autograd.Function):
    """One node for several outputs of a call: it has all their gradients before any flows on. Its outputs are not
    views, so they may be changed in place; they share the version counter of the original outputs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(wiring: GradientWiring, places: tuple[int, ...], *outputs: Tensor) -> Any:
        """The outputs, each as another tensor on the same memory."""
        return tuple(output.detach() for output in outputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the wiring and the places; leave missing gradients None."""
        ctx.wiring, ctx.places, *_ = inputs
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Gradient) -> Any:
        """The gradients of all outputs, as left by the hooks."""
        wiring, places = ctx.wiring, ctx.places
        now = wiring.running_pass()
        now.begun = True
        for place, gradient in zip(places, gradients, strict=True):
            now.output[place] = gradient
        left = now.run_backward_before(wiring, places) if wiring.plan.backward_before else now.output
        return None, None, *(left[place] for place in places)

    @staticmethod
    def jvp(ctx: Any, wiring: Any, places: Any, *tangents: Any) -> Any:
        """Forward mode: the tangents unchanged."""
        return tuple(tangent if tangent is None else tangent.view_as(tangent) for tangent in tangents)


def refuse_vmap() -> None:
    """Raise GradientError inside `torch.vmap`, where no tensor shows whether it requires a gradient."""
    transform = peek_interpreter_stack()
    if transform is not None and transform.key() == TransformType.Vmap:
        raise GradientError(
            "backward hooks see no gradients inside torch.vmap: call torch.func.grad inside vmap, or call the "
            "model under torch.no_grad()"
        )
