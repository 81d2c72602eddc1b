"""A scalar to start a backward pass from, if there is no loss."""

from typing import Any

import torch
from torch import Tensor

from hookline.model.tensors import tensors


def default_loss(output: Any) -> Tensor | None:
    """The `.loss` of the output, else the mean square of its tensors that require a gradient; None if none does.

    >>> default_loss([torch.ones(2, requires_grad=True), torch.zeros(2)])
    tensor(1., grad_fn=<DivBackward0>)
    """
    loss = getattr(output, "loss", None)
    if isinstance(loss, Tensor) and loss.requires_grad:
        return loss.mean()
    found = [tensor for _, tensor in tensors(output) if tensor.requires_grad and tensor.is_floating_point()]
    if not found:
        return None
    squares = [tensor.to(torch.promote_types(tensor.dtype, torch.float32)).square().sum() for tensor in found]
    return torch.stack(squares).sum() / sum(tensor.numel() for tensor in found)
