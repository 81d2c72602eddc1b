"""What is kept of a tensor: shape, statistics, a histogram, the tensor, a copy, or the result of a function."""

import inspect
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from hookline.engine.call import Call
from hookline.engine.graph_values import Sees
from hookline.errors import ArgumentError, ArgumentTypeError
from hookline.messages import wrong_choice
from hookline.model.sharded import copy_of, part_of
from hookline.record.record import TensorInfo
from hookline.record.statistics import BINS, Pending, is_traced, measure, reduced, unseen
from hookline.torch_private import get_tracing_state, is_tracing, set_tracing_state

Keep: TypeAlias = (
    Literal["shape", "stats", "histogram", "tensor", "copy"] | Callable[[Tensor], Any] | Callable[[Tensor, Call], Any]
)
"""What to keep of each tensor: one of these words, which `watch` explains, or a function of the tensor, or of the
tensor and its Call."""
CHOICES = ("'shape'", "'stats'", "'histogram'", "'tensor'", "'copy'", "a function of the tensor")


class Leaf(Protocol):
    """A function that turns a tensor of a call into a TensorInfo."""

    def __call__(self, tensor: Tensor, call: Call | None = None, /) -> TensorInfo:
        """The record of the tensor."""
        ...


def keeper(keep: Keep, pending: Pending, *, name: str = "keep") -> Leaf:
    """The function that turns a tensor into a TensorInfo with what `keep` says.

    Raises ArgumentError for an unknown `keep`; `name` is the caller's argument that holds it.
    """
    if keep == "shape":
        return describe
    if keep == "stats":
        return StatsKeeper(pending)
    if keep == "histogram":
        return StatsKeeper(pending, bins=BINS)
    if keep == "tensor":
        return _with_reference
    if keep == "copy":
        return lambda tensor, call=None: _with_result(tensor, copy_of)
    if not callable(keep):
        raise ArgumentError(wrong_choice(name, keep, CHOICES))
    function = of_tensor_and_call(keep, name=name)
    return lambda tensor, call=None: _with_result(tensor, lambda given: function(given, call))


def of_tensor_and_call(keep: Callable[..., Any], *, name: str = "keep") -> Callable[[Tensor, Call | None], Any]:
    """A function of the tensor, or of the tensor and its call, as one of both; ArgumentTypeError for any other."""
    return keep if takes_call(keep, name=name) else lambda tensor, call: keep(tensor)


def takes_call(keep: Keep, *, name: str = "keep") -> bool:
    """Whether a `keep` is a function of the tensor and its call, not of the tensor alone.

    Raises ArgumentTypeError for a function that takes neither.

    >>> takes_call(lambda tensor, call: tensor[0]), takes_call(torch.mean), takes_call("stats")
    (True, False, False)
    """
    if not callable(keep):
        return False
    try:
        bind = inspect.signature(keep).bind
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    for given in (("tensor",), ("tensor", "call")):
        with suppress(TypeError):
            bind(*given)
            return len(given) == 2
    raise ArgumentTypeError(
        f"{name} must be a function of the tensor, or of the tensor and its call, not one of {inspect.signature(keep)}"
    )


def seen(keep: Keep) -> Sees:
    """What `keep` needs of a tensor in a compiled graph."""
    looked: dict[Any, Sees] = {"shape": "shapes", "stats": "sums", "histogram": "tensors", "copy": "tensors"}
    return looked.get(keep, "copies") if isinstance(keep, str) else "copies"


def describe(tensor: Tensor, call: Call | None = None) -> TensorInfo:
    """A TensorInfo of shape, dtype, device and `requires_grad`. A ragged dimension of a nested tensor has size -1."""
    info = TensorInfo()
    info.dtype = tensor.dtype
    info.device = tensor.device
    info.requires_grad = tensor.requires_grad
    if type(tensor) is Tensor and not is_tracing():
        try:
            info.shape = tensor.shape
        except RuntimeError:
            info.shape = _shape(tensor)
    else:
        info.shape = _shape(tensor)
        info._part = part_of(tensor)
    return info


def _shape(tensor: Tensor) -> tuple[int, ...]:
    if is_tracing():
        return _untraced(tensor)
    try:
        shape = tensor.shape
    except RuntimeError:  # a nested tensor of strided layout has only the sizes that all its parts share
        return tuple(_size(tensor, dim) for dim in range(tensor.dim()))
    if type(tensor) is Tensor:
        return shape
    return tuple(size if isinstance(size, int) else -1 for size in shape)  # a ragged size is a symbol


def _untraced(tensor: Tensor) -> tuple[int, ...]:
    """The shape, read while torch.jit.trace is paused: it would return tensors as sizes, and record the access."""
    state = get_tracing_state()
    set_tracing_state(None)
    try:
        return _shape(tensor)
    finally:
        set_tracing_state(state)


def _size(tensor: Tensor, dim: int) -> int:
    try:
        return tensor.size(dim)
    except RuntimeError:
        return -1


class StatsKeeper:
    """Keeps statistics. A tensor that comes again unchanged, as when a container returns the output of its last child,
    is measured once."""

    __slots__ = ("bins", "last", "pending")

    def __init__(self, pending: Pending, *, bins: int = 0) -> None:
        self.pending, self.bins = pending, bins
        self.last: tuple[Any, int | None, Any] = (lambda: None, 0, None)

    def __call__(self, tensor: Tensor, call: Call | None = None, /) -> TensorInfo:
        """A TensorInfo with statistics."""
        info = describe(tensor)
        shown = None if call is None else call._shown
        if shown is not None and not self.bins and id(tensor) in shown.sums:
            info._stats = reduced(tensor.numel(), shown.sums[id(tensor)], self.pending)
            return info
        version = version_of(tensor)
        reference, last_version, stats = self.last
        if reference() is not tensor or version is None or version != last_version:
            stats = measure(tensor, self.pending, bins=self.bins)
            self.last = (weakref.ref(tensor), version, stats)
        info._stats = stats
        return info


def version_of(tensor: Tensor) -> int | None:
    """The version of a tensor, which counts in-place changes; None for an inference tensor, which has none."""
    try:
        return tensor._version
    except RuntimeError:
        return None


def _with_reference(tensor: Tensor, call: Call | None = None) -> TensorInfo:
    info = TensorInfo()
    info.requires_grad = tensor.requires_grad
    info._value = tensor
    if type(tensor) is Tensor and not is_tracing():
        try:
            info.shape, info._version = tensor.shape, tensor._version
        except RuntimeError:
            info.shape, info._version = _shape(tensor), version_of(tensor)
    else:
        info.shape, info._version = _shape(tensor), version_of(tensor)
        info._part = part_of(tensor)
    return info


def _with_result(tensor: Tensor, function: Callable[[Tensor], Any]) -> TensorInfo:
    info = describe(tensor)
    if not is_traced(tensor):
        with unseen(tensor), torch.no_grad():
            info._value = function(tensor)
    return info
