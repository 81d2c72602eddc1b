"""What of a tensor is kept: its shape, its statistics, the tensor, a copy, or what a function of the caller's makes."""

import weakref
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from torch import Tensor

from hookline.errors import RecordError
from hookline.record.measure import Pending, measure, unseen
from hookline.record.record import TensorInfo

Keep: TypeAlias = Literal["shape", "stats", "tensor", "copy"] | Callable[[Tensor], Any]
Leaf: TypeAlias = Callable[[Tensor], TensorInfo]
new = object.__new__


def keeper(keep: Keep, pending: Pending) -> Leaf:
    """The function that makes a TensorInfo of a tensor, with what `keep` says; RecordError for an unknown `keep`."""
    if keep == "shape":
        return describe
    if keep == "stats":
        return StatsKeeper(pending)
    if keep == "tensor":
        return _with_reference
    if keep == "copy":
        return _with_copy
    if callable(keep):
        return lambda tensor: _with_result(tensor, keep)
    raise RecordError(
        f"keep={keep!r} is not known; it is 'shape', 'stats', 'tensor', 'copy', or a function of the tensor"
    )


def describe(tensor: Tensor) -> TensorInfo:
    """Shape, dtype, device, whether it requires a gradient. The size of a ragged dimension of a nested tensor is -1."""
    info = new(TensorInfo)
    info.shape = _shape(tensor)
    info.dtype = tensor.dtype
    info.device = tensor.device
    info.requires_grad = tensor.requires_grad
    return info


def _shape(tensor: Tensor) -> tuple[int, ...]:
    try:
        shape = tensor.shape
    except RuntimeError:  # a nested tensor of strided layout tells only the sizes that all its parts share
        return tuple(_size(tensor, dim) for dim in range(tensor.dim()))
    if type(tensor) is Tensor:
        return shape
    return tuple(size if isinstance(size, int) else -1 for size in shape)  # a symbol stands for what is ragged


def _size(tensor: Tensor, dim: int) -> int:
    try:
        return tensor.size(dim)
    except RuntimeError:
        return -1


class StatsKeeper:
    """Keeps statistics; a tensor that comes again unchanged, as a container gives on what its last child gave, is
    measured once."""

    __slots__ = ("last", "pending")

    def __init__(self, pending: Pending) -> None:
        self.pending = pending
        self.last: tuple[Any, int, Any] = (lambda: None, 0, None)

    def __call__(self, tensor: Tensor) -> TensorInfo:
        """What is known of a tensor, with its statistics."""
        info = describe(tensor)
        if tensor.is_inference():
            info._stats = measure(tensor, self.pending)
            return info
        reference, version, stats = self.last
        if reference() is not tensor or version != tensor._version:
            stats = measure(tensor, self.pending)
            self.last = (weakref.ref(tensor), tensor._version, stats)
        info._stats = stats
        return info


def _with_reference(tensor: Tensor) -> TensorInfo:
    info = new(TensorInfo)
    info.shape = _shape(tensor)
    info.requires_grad = tensor.requires_grad
    info._value = tensor
    try:
        info._version = tensor._version
    except RuntimeError:  # an inference tensor counts no versions
        info._version = None
    return info


def _with_copy(tensor: Tensor) -> TensorInfo:
    info = describe(tensor)
    with unseen(tensor):
        info._value = tensor.detach().clone()
    return info


def _with_result(tensor: Tensor, function: Callable[[Tensor], Any]) -> TensorInfo:
    info = describe(tensor)
    info._value = function(tensor)
    return info
