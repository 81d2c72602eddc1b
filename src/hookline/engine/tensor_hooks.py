"""Tensor hooks, which read the gradient of one tensor without changing any, and aliases with their own node."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookline.engine.call import here
from hookline.torch_private import unserializable_hook

Gradient: TypeAlias = Tensor | None


class Hooks(dict[Any, Callable[[Tensor], Gradient]]):
    """The hooks of a tensor: a dict that PyTorch's handles can refer to, faster to make than an OrderedDict."""

    __slots__ = ("__weakref__",)


class TensorHook(partial[Gradient]):
    """A tensor hook that PyTorch drops without a warning when the tensor is pickled."""

    __torch_unserializable__ = True


def hook_gradient(tensor: Tensor, see: Callable[[Tensor], Gradient], *, first: bool = False) -> Any:
    """Call `see` with the gradient of a tensor that is not a leaf, whenever a backward pass has all of it. What `see`
    returns replaces the gradient. `first` puts it before the tensor's other hooks. Returns the autograd node.

    This is `Tensor.register_hook` without the handle, which is most of its cost.
    """
    hooks: Any = tensor._backward_hooks
    if hooks is None:
        return hook_new(tensor, see)
    others = [*hooks.items()] if first else ()
    if first:
        hooks.clear()
    hooks[see] = see
    hooks.update(others)
    return tensor.grad_fn


def hook_new(tensor: Tensor, see: Callable[[Tensor], Gradient]) -> Any:
    """The same for a tensor without hooks."""
    node: Any = tensor.grad_fn
    if type(tensor) is Tensor:
        hook_at(node, tensor, see)
    else:
        tensor.register_hook(see)  # type: ignore[no-untyped-call]
    return node


def hook_at(node: Any, tensor: Tensor, see: Callable[[Tensor], Gradient]) -> None:
    """The same for a plain tensor without hooks, whose autograd node is known."""
    hooks = Hooks()
    hooks["hookline"] = see  # PyTorch's own keys are numbers
    tensor._backward_hooks = hooks
    node._register_hook_dict(tensor)


def on_gradient(tensor: Tensor, see: Callable[[Gradient], None]) -> Callable[[], None] | None:
    """Call `see`, a new function that returns None, with the gradient of `tensor`, each time a backward pass has all of
    it.

    It adds no node to the graph and does not change the order in which gradients are summed. A later in-place operation
    does not move it: it stays with the value that the tensor has now. On a leaf (a parameter, or an input that outlives
    the graph) it is called once and then removed; the return value is its undo. If PyTorch has no gradient,
    `see` receives None. For a tensor in a compiled graph, the graph's tap calls it.
    """
    call = here.running.call
    if call is not None and call._shown is not None:
        return call._shown.on_gradient(tensor, lambda gradient, shown: see(gradient))
    if not tensor.is_leaf:
        hook_gradient(tensor, unserializable_hook(see))  # type: ignore[no-untyped-call]
        return None

    @unserializable_hook  # type: ignore[untyped-decorator]
    def once(gradient: Gradient) -> None:
        handle.remove()
        see(gradient)

    handle = tensor.register_hook(once)  # type: ignore[no-untyped-call]
    return handle.remove  # type: ignore[no-any-return]


def alias_of(tensor: Tensor) -> Tensor:
    """The tensor as an alias with its own autograd node."""
    try:
        return tensor[...]
    except (NotImplementedError, RuntimeError):  # sparse and opaque layouts have no views
        return Edge.apply(tensor)  # type: ignore[no-untyped-call, no-any-return]


class Edge(torch.autograd.Function):
    """An alias for tensors that have no views."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Any:
        """The tensor as another one on the same memory."""
        return tensor.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Gradient) -> Any:
        """The gradient as it is."""
        return gradient
