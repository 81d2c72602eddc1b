"""Edits along directions: take a subspace out, keep nothing else, or learn a map of low rank."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hookline.edits.arithmetic import add, like, take_tensor
from hookline.edits.edit import Edit, Spot
from hookline.errors import ArgumentError, EditError


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class project_out(Edit):
    """The tensor without what it has along `directions`: one vector of the last axis' size, or several as rows; they
    need not be orthogonal, nor of length one.

    >>> from hookline import edits
    >>> edits.project_out([0.0, 3.0]).change(torch.tensor([[1.0, 2.0]]), None).tolist()
    [[1.0, 0.0]]
    """

    directions: Any

    def __post_init__(self) -> None:
        take_directions(self)

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """What is orthogonal to the directions."""
        return tensor - along(self, self.directions, tensor)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class project_on(Edit):
    """What the tensor has along `directions`, and nothing else; directions as in `project_out`."""

    directions: Any

    def __post_init__(self) -> None:
        take_directions(self)

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The part in the span of the directions."""
        return along(self, self.directions, tensor)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class low_rank(Edit):
    """`tensor + (tensor @ down.T) @ up.T`: a map that an optimizer trains, as LoRA does for a weight. `size` is that
    of the last axis; it begins as no change at all.

    >>> from hookline import edits
    >>> edit = edits.low_rank.of(8, rank=2)
    >>> [tuple(parameter.shape) for parameter in edit.parameters()]
    [(2, 8), (8, 2)]
    """

    down: Tensor
    up: Tensor

    @classmethod
    def of(cls, size: int, *, rank: int, seed: int = 0) -> "low_rank":
        """One whose parameters are made here; the global random state is left as it was."""
        generator = torch.Generator().manual_seed(seed)
        down = torch.randn(rank, size, generator=generator) / size**0.5
        return cls(torch.nn.Parameter(down), torch.nn.Parameter(torch.zeros(size, rank)))

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The tensor and what the map makes of it."""
        fits(self, self.down.shape[-1], tensor)
        return tensor + (tensor @ like(self.down, tensor).mT) @ like(self.up, tensor).mT


def vector(size: int, *, scale: float = 1.0) -> add:
    """`edits.add` of a vector of zeros that an optimizer trains.

    >>> from hookline import edits
    >>> len(edits.vector(384).parameters())
    1
    """
    return add(torch.nn.Parameter(torch.zeros(size)), scale)


def take_directions(edit: Edit) -> None:
    """Make the directions of an edit a matrix, one in a row."""
    take_tensor(edit, "directions")
    directions: Tensor = edit.directions  # type: ignore[attr-defined]
    if directions.dim() not in (1, 2) or not directions.is_floating_point():
        raise ArgumentError(
            f"{type(edit).__name__} takes a vector, or several as the rows of a matrix, of a floating dtype; "
            f"not {[*directions.shape]} of {directions.dtype}"
        )
    rows = directions if directions.dim() == 2 else directions[None]
    if not bool((rows.detach().norm(dim=-1) > 0).all()):
        raise ArgumentError(f"{type(edit).__name__} was given a direction of length zero")
    if rows.requires_grad and int(torch.linalg.matrix_rank(rows.detach().float())) < len(rows):
        raise ArgumentError(f"{type(edit).__name__} cannot train directions of which one follows from the others")
    object.__setattr__(edit, "directions", rows)


def along(edit: Edit, directions: Tensor, tensor: Tensor) -> Tensor:
    """The part of a tensor in the span of the directions, by an orthonormal basis of it."""
    fits(edit, directions.shape[-1], tensor)
    exact = torch.promote_types(tensor.dtype, torch.float32)
    basis = basis_of(directions.to(tensor.device, exact))
    wide = tensor.to(exact)
    part: Tensor = (wide @ basis) @ basis.mT
    return part.to(tensor.dtype)


def basis_of(directions: Tensor) -> Tensor:
    """An orthonormal basis of what the rows span, in columns: fewer than rows where one follows from others."""
    if directions.requires_grad:
        basis: Tensor = torch.linalg.qr(directions.mT).Q
        return basis
    sizes: Tensor
    right: Tensor
    _, sizes, right = torch.linalg.svd(directions, full_matrices=False)
    smallest = sizes.max() * max(directions.shape) * torch.finfo(directions.dtype).eps
    return right[sizes > smallest].mT


def fits(edit: Edit, size: int, tensor: Tensor) -> None:
    """EditError where the last axis of a tensor is not of this size."""
    if tensor.dim() == 0 or tensor.shape[-1] != size:
        raise EditError(f"{edit} is for a last axis of {size}; the tensor is {[*tensor.shape]}")
