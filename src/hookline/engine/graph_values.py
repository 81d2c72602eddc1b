"""What a compiled graph shows its taps of a tensor: the whole of it, a copy, its shape alone, or that and the sums that
its statistics are made of.

A whole tensor has to lie in memory when a tap looks at it, and the graph puts others there afterwards, so that whoever
keeps it asks for a copy. A shape is a tensor of one element, expanded, and sums are reductions, which inductor fuses
with what computes the tensor: that need never be in memory then.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

Sees: TypeAlias = Literal["shapes", "sums", "tensors", "copies"]  # each is enough for those before it
MORE: tuple[Sees, ...] = get_args(Sees)
SUMS = ("min", "max", "sum", "sum of squares", "zeros", "NaN", "not finite")  # the last three are counts
HALF_OVERFLOWS, HALF_VANISHES = 65520.0, 2.0**-25
REDUCED = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def kinds_of(tensors: Sequence[Tensor], sees: Sees) -> str:
    """A letter for each tensor: "t" where it is shown whole, "k" where a copy is to be kept, "c" where it is complex
    (inductor takes no such argument, so it is shown as real), "s" for its shape, "r" for shape and sums. Only what is
    plain is reduced in the graph: not float64, whose squares no wider type holds, and nothing empty."""
    kinds = ""
    for tensor in tensors:
        if tensor.is_complex():
            kinds += "c"
        elif sees == "copies":
            kinds += "k"
        elif sees == "tensors" or type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
            kinds += "t"
        elif sees == "shapes":
            kinds += "s"
        else:
            kinds += "r" if tensor.dtype in REDUCED and has_elements(tensor) else "t"
    return kinds


def has_elements(tensor: Tensor) -> bool:
    """Whether a tensor is known to have elements: not where its data tell its size."""
    from hookline.torch_private.compiler import guard_or_false

    return guard_or_false(tensor.numel() != 0)


def packed(tensors: Sequence[Tensor], kinds: str) -> list[Tensor]:
    """What the graph hands to a tap for these tensors."""
    parts: list[Tensor] = []
    for tensor, kind in zip(tensors, kinds, strict=True):
        if kind in "tk":
            parts.append(tensor)
        elif kind == "c":
            parts.append(torch.view_as_real(tensor.detach().resolve_conj()))
        else:
            parts.append(tensor.detach().new_empty(()).expand(tensor.shape))
        if kind == "r":
            parts.extend(sums(tensor.detach()))
    return parts


def unpacked(parts: Sequence[Tensor], kinds: str) -> tuple[list[Tensor], list[list[Tensor] | None]]:
    """What the tap was handed, as tensors and the SUMS of each."""
    ahead = iter(parts)
    tensors: list[Tensor] = []
    rows: list[list[Tensor] | None] = []
    for kind in kinds:
        part = next(ahead)
        if kind in "kc":
            part = part.detach().clone()
        tensors.append(torch.view_as_complex(part) if kind == "c" else part)
        rows.append([next(ahead) for _ in SUMS] if kind == "r" else None)
    return tensors, rows


def sums(values: Tensor) -> list[Tensor]:
    """SUMS of a tensor, a number each. Those of float64, where the device has it, do not overflow, and lose nothing
    that the deviation from the mean of squares would miss. All are of one shape, so that they become one loop."""
    widest = torch.float32 if values.device.type == "mps" else torch.float64
    if not values.is_floating_point():
        values = values.to(widest)
    elif values.dtype == torch.float16:
        values = rounded(values.float())
    wide, nan = values.to(widest), values != values
    counted = (values == 0, nan, nan | (values.abs() == float("inf")))
    counts = [torch.where(each, 1.0, 0.0).sum(dtype=widest) for each in counted]
    return [values.amin(), values.amax(), wide.sum(), (wide * wide).sum(), *counts]


def rounded(values: Tensor) -> Tensor:
    """What half makes infinite or 0 of values, as that: inductor does not round between what it fuses."""
    size = values.abs()
    return torch.where(size >= HALF_OVERFLOWS, values * float("inf"), torch.where(size <= HALF_VANISHES, 0.0, values))
