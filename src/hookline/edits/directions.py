"""Edits along directions: remove a subspace, keep only a subspace, or train a low-rank map."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hookline.edits.arithmetic import add, like, take_tensor
from hookline.edits.edit import Edit, Spot
from hookline.errors import ArgumentError, EditError


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class project_out(Edit):
    """The tensor without its component along `directions`: a vector of the size of the last axis, or several as rows.
    They need not be orthogonal, nor of length 1.

    >>> from hookline import edits
    >>> edits.project_out([0.0, 3.0]).change(torch.tensor([[1.0, 2.0]]), None).tolist()
    [[1.0, 0.0]]
    """

    directions: Any

    def __post_init__(self) -> None:
        take_directions(self)

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The component orthogonal to the directions."""
        return tensor - along(self, self.directions, tensor)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class project_on(Edit):
    """Only the component of the tensor along `directions`, which are as in `project_out`."""

    directions: Any

    def __post_init__(self) -> None:
        take_directions(self)

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The component in the span of the directions."""
        return along(self, self.directions, tensor)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class low_rank(Edit):
    """`tensor + (tensor @ down.T) @ up.T`: a map for an optimizer to train, as LoRA does for a weight.

    `low_rank.of(size, rank=...)` creates one for a last axis of that size. It starts as the identity.

    >>> from hookline import edits
    >>> edit = edits.low_rank.of(8, rank=2)
    >>> [tuple(parameter.shape) for parameter in edit.parameters()]
    [(2, 8), (8, 2)]
    """

    down: Tensor
    up: Tensor

    @classmethod
    def of(cls, size: int, *, rank: int, seed: int = 0) -> "low_rank":
        """Create one with new parameters. The global random state does not change."""
        generator = torch.Generator().manual_seed(seed)
        down = torch.randn(rank, size, generator=generator) / size**0.5
        return cls(torch.nn.Parameter(down), torch.nn.Parameter(torch.zeros(size, rank)))

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The tensor plus the low-rank map of it."""
        fits(self, self.down.shape[-1], tensor)
        return tensor + (tensor @ like(self.down, tensor).mT) @ like(self.up, tensor).mT


def vector(size: int, *, scale: float = 1.0) -> add:
    """Create an `edits.add` of a vector of zeros for an optimizer to train.

    >>> from hookline import edits
    >>> len(edits.vector(384).parameters())
    1
    """
    return add(torch.nn.Parameter(torch.zeros(size)), scale)


def take_directions(edit: Edit) -> None:
    """Turn the directions of an edit into a matrix, one per row."""
    take_tensor(edit, "directions")
    directions: Tensor = edit.directions  # type: ignore[attr-defined]
    if directions.dim() not in (1, 2) or not directions.is_floating_point():
        raise ArgumentError(
            f"directions of edits.{type(edit).__name__} must be a vector, or a matrix of one vector per row, of a "
            f"floating dtype, not {[*directions.shape]} of {directions.dtype}"
        )
    rows = directions if directions.dim() == 2 else directions[None]
    if not bool((rows.detach().norm(dim=-1) > 0).all()):
        raise ArgumentError(f"directions of edits.{type(edit).__name__} must not be of length 0")
    if rows.requires_grad and int(torch.linalg.matrix_rank(rows.detach().float())) < len(rows):
        raise ArgumentError(f"edits.{type(edit).__name__} can train directions only if they are linearly independent")
    object.__setattr__(edit, "directions", rows)


def along(edit: Edit, directions: Tensor, tensor: Tensor) -> Tensor:
    """The component of a tensor in the span of the directions, through an orthonormal basis of it."""
    fits(edit, directions.shape[-1], tensor)
    exact = torch.promote_types(tensor.dtype, torch.float32)
    basis = basis_of(directions.to(tensor.device, exact))
    wide = tensor.to(exact)
    part: Tensor = (wide @ basis) @ basis.mT
    return part.to(tensor.dtype)


def basis_of(directions: Tensor) -> Tensor:
    """An orthonormal basis of the span of the rows, in columns; fewer than rows where these are dependent."""
    if directions.requires_grad:
        basis: Tensor = torch.linalg.qr(directions.mT).Q
        return basis
    sizes: Tensor
    right: Tensor
    _, sizes, right = torch.linalg.svd(directions, full_matrices=False)
    smallest = sizes.max() * max(directions.shape) * torch.finfo(directions.dtype).eps
    return right[sizes > smallest].mT


def fits(edit: Edit, size: int, tensor: Tensor) -> None:
    """Raise EditError where the last axis of a tensor is not of this size."""
    if tensor.dim() == 0 or tensor.shape[-1] != size:
        raise EditError(f"{edit} needs a last axis of {size}; the tensor is {[*tensor.shape]}")
