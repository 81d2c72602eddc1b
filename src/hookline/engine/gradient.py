"""The backward half of a call: seeing the gradient of what a module gave, without changing one bit of any gradient."""

from collections.abc import Callable

from torch import Tensor
from torch.utils.hooks import RemovableHandle, unserializable_hook


def on_gradient(tensor: Tensor, see: Callable[[Tensor | None], None]) -> RemovableHandle:
    """Call `see`, a new function that gives None, with the gradient of `tensor`, each time a backward pass has all of
    it; gives the undo.

    It is a tensor hook: it adds no node to the graph and leaves the order in which gradients are summed as it is. An
    in-place operation afterwards does not move it: it stays with the value that the tensor has now. On a leaf, a
    parameter or an input that outlives the graph, it is called once and then gone. Where PyTorch has no gradient to
    give it gives None.
    """

    if not tensor.is_leaf:
        seen: RemovableHandle = tensor.register_hook(unserializable_hook(see))  # type: ignore[no-untyped-call]
        return seen

    @unserializable_hook  # type: ignore[untyped-decorator]
    def once(gradient: Tensor | None) -> None:
        handle.remove()
        see(gradient)

    handle: RemovableHandle = tensor.register_hook(once)  # type: ignore[no-untyped-call]
    return handle
