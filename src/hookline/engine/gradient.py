"""The backward half of a call: seeing the gradient of what a module gave, without changing one bit of any gradient."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle, unserializable_hook


def on_gradient(tensor: Tensor, see: Callable[[Tensor | None], Any]) -> RemovableHandle:
    """Call `see` with the gradient of `tensor`, each time a backward pass has all of it; gives the undo.

    It is a tensor hook: it adds no node to the graph and leaves the order in which gradients are summed as it is. An
    in-place operation afterwards does not move it: it stays with the value that the tensor has now. On a leaf, a
    parameter or an input that outlives the graph, it is called once and then gone. Where PyTorch has no gradient to
    give it gives None.
    """

    @unserializable_hook  # type: ignore[untyped-decorator]
    def hook(gradient: Tensor | None) -> None:
        if is_leaf:
            handle.remove()
        see(gradient)

    is_leaf = tensor.is_leaf
    handle: RemovableHandle = tensor.register_hook(hook)  # type: ignore[no-untyped-call]
    return handle
