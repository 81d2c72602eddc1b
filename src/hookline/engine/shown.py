"""What a compiled graph shows its taps of a tensor: the whole of it, a copy, its shape alone, or that and the figures
of its statistics.

A whole tensor has to lie in memory when a tap looks at it, and the graph puts others there afterwards, so that whoever
keeps it asks for a copy. A shape is a tensor of one element, expanded, and figures
are reductions, which inductor fuses with what computes the tensor: that need never be in memory then.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

Sees: TypeAlias = Literal["shapes", "figures", "tensors", "copies"]  # each is enough for those before it
MORE: tuple[Sees, ...] = get_args(Sees)
FIGURES = ("min", "max", "mean", "std", "norm", "zeros", "nan", "unfinite")  # the last three are counts
HALF_OVERFLOWS, HALF_VANISHES = 65520.0, 2.0**-25
REDUCED = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def kinds_of(tensors: Sequence[Tensor], sees: Sees) -> str:
    """A letter for each tensor: "t" where it is shown whole, "k" where a copy is to be kept, "c" where it is complex
    (inductor takes no such argument, so it is shown as real), "s" for its shape, "f" for shape and figures. Only what
    is plain is reduced in the graph: not float64, whose squares no wider type holds, and nothing empty."""
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
            kinds += "f" if tensor.dtype in REDUCED and has_elements(tensor) else "t"
    return kinds


def has_elements(tensor: Tensor) -> bool:
    """Whether a tensor is known to have elements: not where its data tell its size."""
    from torch.fx.experimental.symbolic_shapes import guard_or_false

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
        if kind == "f":
            parts.append(figures(tensor.detach()))
    return parts


def unpacked(parts: Sequence[Tensor], kinds: str) -> tuple[list[Tensor], list[Tensor | None]]:
    """What the tap was handed, as tensors and the figures of each."""
    ahead = iter(parts)
    tensors, rows = [], []
    for kind in kinds:
        part = next(ahead)
        if kind in "kc":
            part = part.detach().clone()
        tensors.append(torch.view_as_complex(part) if kind == "c" else part)
        rows.append(next(ahead) if kind == "f" else None)
    return tensors, rows


def figures(values: Tensor) -> Tensor:
    """FIGURES of a tensor, in a row of float64 where the device has that: sums in it do not overflow, and lose nothing
    that std from the mean of squares would miss. Counts are summed by rows first, in float32, which is exact and fast.
    """
    widest = torch.float32 if values.device.type == "mps" else torch.float64
    if values.dim() == 0:
        values = values.reshape(1)
    if not values.is_floating_point():
        values = values.to(widest)
    elif values.dtype == torch.float16:
        values = rounded(values.float())
    count, wide = values.numel(), values.to(widest)
    mean, square = wide.sum() / count, (wide * wide).sum() / count
    std, norm = (square - mean * mean).clamp_min(0).sqrt(), (square * count).sqrt()
    nan = values != values
    counted = (values == 0, nan, nan | (values.abs() == float("inf")))
    counts = [torch.where(each, 1.0, 0.0).sum(-1).to(widest).sum() for each in counted]
    return torch.stack([values.amin().to(widest), values.amax().to(widest), mean, std, norm, *counts])


def rounded(values: Tensor) -> Tensor:
    """What half makes infinite or 0 of values, as that: inductor does not round between what it fuses."""
    size = values.abs()
    return torch.where(size >= HALF_OVERFLOWS, values * float("inf"), torch.where(size <= HALF_VANISHES, 0.0, values))
