"""The backward half of a call: seeing the gradient of what a module gave, without changing one bit of any gradient."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def on_gradient(tensor: Tensor, see: Callable[[Tensor], Any]) -> None:
    """Call `see` with the gradient of `tensor`, each time a backward pass has all of it.

    It is a tensor hook: it adds no node to the graph and leaves the order in which gradients are summed as it is. An
    in-place operation afterwards does not move it: it stays with the value that the tensor has now.
    """

    @torch.utils.hooks.unserializable_hook  # type: ignore[untyped-decorator]
    def hook(gradient: Tensor) -> None:
        see(gradient)

    tensor.register_hook(hook)  # type: ignore[no-untyped-call]
