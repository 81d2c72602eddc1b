"""Whether every process of a model that is spread over them has whole rows, and not a part of each."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hookline.capturing.block import Block
from hookline.capturing.misuse import MisuseError

LOOKED_AT = 256  # values of each point
CLOSE = 1e-2  # how far the same values may differ between processes, of the largest


def expect_whole(found: Mapping[str, Block]) -> None:
    """MisuseError in every process where the rows of a point differ between them: tensor parallelism leaves each with a
    part of a tensor that says nothing about the others, and only one process writes. All processes must call it."""
    own = {point: (tuple(block.values.shape), sampled(block.values)) for point, block in found.items()}
    every: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, own)
    for point in every[0]:
        if not all(point in others and are_same(every[0][point], others[point]) for others in every):
            shapes = sorted({others[point][0] for others in every if point in others})
            raise MisuseError(
                f"the rows of {point!r} differ between the processes over which the model is spread: each has a part, "
                f"of shape {' or '.join(str([*shape]) for shape in shapes)}; select a module behind it, whose output "
                "is whole, or parallelize it with use_local_output=False"
            )


def sampled(values: Tensor) -> Tensor:
    """Some of the values, spread evenly, as float64."""
    flat = values.reshape(-1)
    return flat[:: max(1, len(flat) // LOOKED_AT)].to(torch.float64)


def are_same(one: tuple[tuple[int, ...], Tensor], other: tuple[tuple[int, ...], Tensor]) -> bool:
    """Whether two processes have the same values, but for rounding."""
    (shape, values), (others_shape, others) = one, other
    if shape != others_shape:
        return False
    finite = values[values.isfinite()].abs()
    largest = finite.max().item() if len(finite) else 0.0
    return torch.allclose(values, others, rtol=CLOSE, atol=CLOSE * largest, equal_nan=True)
