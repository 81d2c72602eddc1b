"""Edits that need only the tensor: zero, replace, add, scale, clamp, noise, swap."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hookline.edits.edit import Edit, Spot
from hookline.errors import ArgumentError, ArgumentTypeError, EditError
from hookline.torch_private import get_tracing_state


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class zero(Edit):
    """Zeros in place of every element, NaN included. The gradient of the original tensor is zero.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, bias=False))
    >>> with hookline.edit(model, "0", output=hookline.edits.zero()):
    ...     model(torch.ones(1, 2)).tolist()
    [[0.0, 0.0]]
    """

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """Zeros in the shape of the tensor."""
        return instead_of(tensor, 0) if keeps_graph(tensor) else torch.zeros_like(tensor)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class replace(Edit):
    """Your own value: a number, or a tensor that broadcasts to the original."""

    value: Any

    def __post_init__(self) -> None:
        take_tensor(self, "value")

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The value, in the shape, dtype and device of the tensor."""
        return instead_of(tensor, self.value)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class add(Edit):
    """`tensor + scale * vector`: steering. The vector broadcasts; a `torch.nn.Parameter` is trained.

    >>> from hookline import edits
    >>> edits.add(torch.ones(3), scale=4.0)
    add(vector=float32[3] cpu, scale=4.0)
    """

    vector: Any
    scale: float = 1.0

    def __post_init__(self) -> None:
        take_tensor(self, "vector")

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The sum."""
        vector = like(self.vector, tensor)
        return combined(torch.add, tensor, vector if self.scale == 1 else self.scale * vector)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class scale(Edit):
    """`factor * tensor`; the factor is a number, or a tensor that broadcasts."""

    factor: Any

    def __post_init__(self) -> None:
        if not isinstance(self.factor, int | float):
            take_tensor(self, "factor")

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The product."""
        if isinstance(self.factor, Tensor):
            return combined(torch.mul, tensor, like(self.factor, tensor))
        product: Tensor = tensor * self.factor
        return product


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class clamp(Edit):
    """Elements clamped to `min` and `max`; None leaves a side unbounded."""

    min: float | None = None
    max: float | None = None

    def __post_init__(self) -> None:
        if self.min is None and self.max is None:
            raise ArgumentError("edits.clamp needs min=, max= or both")

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The clamped tensor."""
        return tensor.clamp(self.min, self.max)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class noise(Edit):
    """The tensor plus normal noise of standard deviation `std`.

    The noise comes from its own generator, seeded by `seed`, the path of the module and the number of the call. The
    random state of the model does not change, and the same run has the same noise. Two noise edits that are added to
    one module separately need different seeds.
    """

    std: float
    seed: int = 0
    located: ClassVar[bool] = True

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The tensor with noise."""
        if tensor.is_meta:
            return tensor.clone()
        generator = generator_for(self.seed, spot, tensor.device)
        drawn = torch.randn(tensor.shape, generator=generator, device=tensor.device, dtype=torch.float32)
        return tensor + (self.std * drawn).to(tensor.dtype)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class swap(Edit):
    """Two indices along an axis, swapped: two positions (`axis=1`), two examples (`axis=0`), two units (`axis=-1`).
    Lists swap several at once.

    >>> from hookline import edits
    >>> edits.swap(0, 2).change(torch.tensor([[1, 2, 3]]), None).tolist()
    [[3, 2, 1]]
    """

    first: Any
    second: Any
    axis: int = -1

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The tensor with the indices swapped."""
        places = torch.arange(tensor.shape[self.axis])
        order = places.clone()
        try:
            first, second = places[self.first].reshape(-1), places[self.second].reshape(-1)
        except IndexError as error:
            raise EditError(f"{self} does not fit a tensor of shape {[*tensor.shape]}: {error}") from None
        if len(first) != len(second) or len({*first.tolist(), *second.tolist()}) != 2 * len(first):
            raise EditError(f"{self} needs equally many indices in first and second, each once")
        order[first], order[second] = second, first
        return tensor.index_select(self.axis, order.to(tensor.device))


# What edits share


def take_tensor(edit: Edit, name: str) -> None:
    """Turn a field that was passed as a number or a list into a tensor."""
    value = getattr(edit, name)
    if isinstance(value, Tensor):
        return
    try:
        object.__setattr__(edit, name, torch.as_tensor(value))
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(edit).__name__
        message = f"{name} of edits.{kind} must be a number or a tensor, not {value!r} ({error})"
        raise ArgumentTypeError(message) from None


def like(value: Tensor, tensor: Tensor) -> Tensor:
    """A value in the dtype and on the device of a tensor."""
    if value.dtype is tensor.dtype and value.device == tensor.device:
        return value
    return value.to(tensor.device, tensor.dtype)


def instead_of(tensor: Tensor, value: Any) -> Tensor:
    """A value in the shape of a tensor, as a new tensor. The gradient of the original tensor is zero."""
    given = value if isinstance(value, Tensor) else tensor.new_full((), value)
    try:
        fitted = like(given, tensor).expand_as(tensor)
    except RuntimeError:
        raise misfit(given, tensor) from None
    if not keeps_graph(tensor):
        return fitted.clone()
    return torch.where(torch.ones((), dtype=torch.bool, device=tensor.device), fitted, tensor)


def keeps_graph(tensor: Tensor) -> bool:
    """Whether the tensor that replaces this one must stay in its graph, as when one is traced."""
    return tensor.requires_grad or get_tracing_state() is not None


def combined(operation: Callable[[Tensor, Tensor], Tensor], tensor: Tensor, value: Tensor) -> Tensor:
    """The result of an operation on a tensor and a value that broadcasts to it; EditError where it does not."""
    try:
        new = operation(tensor, value)
    except RuntimeError:
        raise misfit(value, tensor) from None
    if new.shape != tensor.shape:
        raise misfit(value, tensor)
    return new


def misfit(value: Tensor, tensor: Tensor) -> EditError:
    """The error about a value that does not broadcast to a tensor."""
    return EditError(f"a value of shape {[*value.shape]} does not broadcast to a tensor of shape {[*tensor.shape]}")


def generator_for(seed: int, spot: Spot, device: torch.device) -> torch.Generator:
    """A generator for one spot of one call."""
    name = repr((seed, spot.path, spot.index, spot.part, spot.keys, spot.place)).encode()
    number = int.from_bytes(hashlib.blake2b(name, digest_size=7).digest(), "big")
    return torch.Generator(device).manual_seed(number)
