"""What a compiled graph shows its taps of a tensor: the tensor, a copy, only its shape, or its shape and the sums that
statistics are computed from.

A tensor must be in memory when a tap reads it, and the graph reuses that memory afterwards, so a hook that keeps it
needs a copy. A shape is an expanded tensor of one element, and sums are reductions. Inductor fuses these with the
computation of the tensor, which then need not be in memory at all.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

Sees: TypeAlias = Literal["shapes", "sums", "tensors", "copies"]  # each includes those before it
MORE: tuple[Sees, ...] = get_args(Sees)
SUMS = ("min", "max", "sum", "sum of squares", "zeros", "NaN", "not finite")  # the last three are counts
HALF_OVERFLOWS, HALF_VANISHES = 65520.0, 2.0**-25
REDUCED = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def kinds_of(tensors: Sequence[Tensor], sees: Sees) -> str:
    """A letter for each tensor: "t" for the tensor itself, "k" for a copy, "c" for a complex tensor (inductor takes no
    such argument, so it is shown as real), "s" for its shape, "r" for shape and sums. Only plain tensors are reduced in
    the graph: not float64, whose squares no wider type holds, and not empty ones."""
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
    """Whether a tensor is known to have elements: False if its size depends on data."""
    from hookline.torch_private.compiler import guard_or_false

    return guard_or_false(tensor.numel() != 0)


def packed(tensors: Sequence[Tensor], kinds: str) -> list[Tensor]:
    """What the graph passes to a tap for these tensors."""
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
    """The tensors that a tap received, and the SUMS of each."""
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
    """SUMS of a tensor, a number each. They are float64 where the device has it, which does not overflow and is precise
    enough to compute the standard deviation from the mean of squares. All have one shape, so that inductor makes one
    loop of them."""
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
    """The values with those that float16 makes infinite or 0 so: inductor does not round between fused operations."""
    size = values.abs()
    return torch.where(size >= HALF_OVERFLOWS, values * float("inf"), torch.where(size <= HALF_VANISHES, 0.0, values))
