"""Distributed tensors: which part of one this process holds."""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PER_RANK = "PerRank()"


@dataclass(frozen=True, slots=True)
class Part:
    """What one process holds of a distributed tensor (a DTensor).

    - `shape`: of what it holds; `placement`: for each dimension of the device mesh how the tensor lies along it, as
      "Shard(0)", "Replicate()", "Partial(sum)"; in a gathered run also "PerRank()", a plain tensor of each rank's own;
    - `mesh`: how many processes there are in each dimension of the mesh; `ranks`: which they are, row by row;
    - `place`: where in the mesh this process stands, None where it is not in it.
    """

    shape: tuple[int, ...]
    placement: tuple[str, ...]
    mesh: tuple[int, ...]
    ranks: tuple[int, ...]
    place: tuple[int, ...] | None


def part_of(tensor: Tensor) -> Part | None:
    """Which part of a distributed tensor is here; None for any other tensor. No process is asked."""
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
    """What of a distributed tensor is in this process, without a gradient; any other tensor as it is.

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
    """A copy without a gradient. Of a distributed tensor the part here is copied: `clone` would have the processes
    exchange what is Partial."""
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
    """Whether it is a DTensor. While nobody has imported them there are none."""
    distributed = None if type(tensor) is Tensor else sys.modules.get("torch.distributed.tensor")
    return distributed is not None and isinstance(tensor, distributed.DTensor)


def rank_and_world() -> tuple[int | None, int | None]:
    """This process' rank and how many there are; None and None where torch.distributed is not initialized."""
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
