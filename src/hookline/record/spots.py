"""Where in a tensor the elements are that are not finite, as a text: which indices, and which mask explains them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod
from typing import Any

import torch
from torch import Tensor

from hookline.model.sharded import local_part
from hookline.record.statistics import is_traced, unseen

MOST_SHOWN = 4  # indices or ranges that are written out for one dimension


@dataclass(frozen=True, slots=True)
class Spots:
    """The elements of one tensor that are not finite, as tensors on its device until they are read.

    - `shape`: the shape of the tensor;
    - `amount`: how many elements are not finite;
    - `along`: for each dimension, whether each of its indices has any;
    - `rows`: the same for the first two dimensions together, None with fewer;
    - `masks`: by name, the arguments with a truth value for each position in the first two dimensions.
    """

    shape: tuple[int, ...]
    amount: Tensor
    along: tuple[Tensor, ...]
    rows: Tensor | None
    masks: Mapping[str, Tensor]

    @property
    def where(self) -> str:
        """The elements as a text such as "at [3, 5:9, :]"; "" for all elements or none.

        It says "within" instead of "at" if that index also covers finite elements.
        """
        amount = int(self.amount)
        if not amount or amount == prod(self.shape):
            return ""
        indices = [each.nonzero().flatten().tolist() for each in self.along]
        text = ", ".join(_dimension(own, size) for own, size in zip(indices, self.shape, strict=True))
        filled = prod(len(own) for own in indices) == amount
        place = f"{'at' if filled else 'within'} [{text}]" if set(text) - set(":, ") else ""
        return "; ".join(filter(None, (place, *self._masked())))

    def _masked(self) -> Iterator[str]:
        """The first mask that explains all of them: it has one value at all of them and another elsewhere."""
        for name, mask in self.masks.items():
            if self.rows is None or mask.shape != self.rows.shape or not _is_mask(mask):
                continue
            mask = mask.to(self.rows.device)
            values = mask[self.rows]
            value = values[0].item()
            if bool((values == value).all()) and bool((mask != value).any()):
                yield f"all where {name} is {value if isinstance(value, bool) else f'{value:g}'}"
                return


def spots(tensor: Tensor, masks: Mapping[str, Tensor] | None = None) -> Spots | None:
    """The spots of a tensor, found without waiting for its device; None where its elements cannot be read.

    >>> spots(torch.tensor([[1.0, 2.0], [float("nan"), 3.0]])).where
    'at [1, 0]'
    """
    try:
        tensor = local_part(tensor)
        if is_traced(tensor) or tensor.is_meta or tensor.is_nested or tensor.layout != torch.strided:
            return None
        with unseen(tensor), torch.no_grad():
            bad = tensor.detach().isfinite().logical_not()
            dims = range(bad.dim())
            along = tuple(_any(bad, [other for other in dims if other != dim]) for dim in dims)
            rows = _any(bad, [*dims][2:]) if bad.dim() >= 2 else None
            return Spots(tuple(bad.shape), bad.sum(), along, rows, masks or {})
    except Exception:  # a tensor class may raise anything, and looking never ends a call
        return None


def masks_in(arguments: Mapping[str, Any], shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The arguments that may be masks: tensors with the first two dimensions of a shape.

    >>> masks_in({"mask": torch.tensor([[1, 0]]), "x": torch.ones(1, 2, 8)}, (1, 2, 8))
    {'mask': tensor([[1, 0]])}
    """
    return {
        name: value
        for name, value in arguments.items()
        if isinstance(value, Tensor) and len(shape) >= 2 and value.shape == shape[:2]
    }


def _is_mask(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bool or bool(((tensor == 0) | (tensor == 1)).all())


def _any(bad: Tensor, dims: list[int]) -> Tensor:
    return bad.amax(dim=dims) if dims else bad


def _dimension(indices: list[int], size: int) -> str:
    """The indices of one dimension, as written in brackets.

    >>> _dimension([0, 1, 2], 3), _dimension([4], 9), _dimension([4, 5, 6, 8], 9)
    (':', '4', '4:7 8')
    """
    if len(indices) == size:
        return ":"
    stretches = [[*own] for _, own in groupby(enumerate(indices), lambda pair: pair[1] - pair[0])]
    if len(stretches) > MOST_SHOWN:
        return f"{len(indices)} of {size}"
    return " ".join(str(own[0][1]) if len(own) == 1 else f"{own[0][1]}:{own[-1][1] + 1}" for own in stretches)
