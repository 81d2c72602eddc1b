"""Distributed tensors: the part of one that this process holds."""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PER_RANK = "PerRank()"


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a distributed tensor (a DTensor) in one process.

    - `shape`: the shape of the part;
    - `placement`: the placement along each dimension of the device mesh, as "Shard(0)", "Replicate()" or
      "Partial(sum)"; in a gathered run also "PerRank()", for a plain tensor that differs between ranks;
    - `mesh`: the number of processes in each dimension of the mesh;
    - `ranks`: the ranks of these processes, row by row;
    - `place`: the position of this process in the mesh, None if it is not in it.
    """

    shape: tuple[int, ...]
    placement: tuple[str, ...]
    mesh: tuple[int, ...]
    ranks: tuple[int, ...]
    place: tuple[int, ...] | None


def part_of(tensor: Tensor) -> Part | None:
    """The part of a distributed tensor in this process; None for a plain tensor. It needs no communication."""
    if not is_distributed(tensor):
        return None
    mesh: Any = tensor.device_mesh  # type: ignore[attr-defined]
    place = mesh.get_coordinate()
    return Part(
        shape=tuple(local_part(tensor).shape),
        placement=tuple(map(_placement, tensor.placements)),  # type: ignore[attr-defined]
        mesh=tuple(mesh.shape),
        ranks=tuple(mesh.mesh.flatten().tolist()),
        place=None if place is None else tuple(place),
    )


def local_part(tensor: Tensor) -> Tensor:
    """The local tensor of a distributed tensor, without a gradient; a plain tensor unchanged.

    >>> import torch
    >>> local_part(torch.ones(2))
    tensor([1., 1.])
    """
    if not is_distributed(tensor):
        return tensor
    with torch.no_grad():
        local: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return local


def copy_of(tensor: Tensor) -> Tensor:
    """A copy without a gradient. Of a distributed tensor only the local part is copied, since `clone` of a Partial one
    would communicate."""
    if not is_distributed(tensor):
        return tensor.detach().clone()
    with torch.no_grad():
        whole: Any = tensor
        kind: Any = sys.modules["torch.distributed.tensor"].DTensor
        copied: Tensor = kind.from_local(
            whole.to_local().clone(),
            whole.device_mesh,
            whole.placements,
            run_check=False,
            shape=whole.shape,
            stride=whole.stride(),
        )
    return copied


def is_distributed(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, which it cannot be before torch.distributed.tensor is imported."""
    distributed = None if type(tensor) is Tensor else sys.modules.get("torch.distributed.tensor")
    return distributed is not None and isinstance(tensor, distributed.DTensor)


def rank_and_world() -> tuple[int | None, int | None]:
    """The rank and world size of this process; None and None if torch.distributed is not initialized."""
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        return None, None
    return distributed.get_rank(), distributed.get_world_size()


def _placement(placement: Any) -> str:
    if placement.is_partial():
        return f"Partial({getattr(placement, 'reduce_op', '')})"
    if placement.is_replicate():
        return "Replicate()"
    dim = getattr(placement, "dim", None)
    return repr(placement) if dim is None else f"Shard({dim})"
