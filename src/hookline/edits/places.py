"""Where in a tensor an edit applies: positions, heads, units."""

from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from hookline.errors import ArgumentError, ArgumentTypeError, EditError


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class at:
    """Positions, heads or units of a tensor [batch, positions, ..., units], for `edit(at=...)`.

    - `position`: positions along axis 1, as a number, a slice or a list;
    - `head`: attention heads, the same way; `heads` is their number, as equal parts of the last axis;
    - `unit`: units along the last axis, the same way.

    Any tensor index works too: `at=(slice(None), -1)`, a boolean mask [batch, positions], or
    `(torch.arange(batch), positions)` for a position of its own in each example.

    >>> import torch
    >>> from hookline import edits
    >>> edits.at(position=-1, head=1, heads=4).index(torch.zeros(2, 5, 8))
    (slice(None, None, None), -1, Ellipsis, slice(2, 4, None))
    """

    position: Any = None
    head: Any = None
    heads: int | None = None
    unit: Any = None

    def __post_init__(self) -> None:
        given = [value for value in (self.position, self.head, self.unit) if value is not None]
        if not given:
            raise ArgumentError("edits.at needs position=, head= with heads=, or unit=")
        if (self.head is None) != (self.heads is None) or (self.head is not None and self.unit is not None):
            raise ArgumentError("edits.at takes head= only with heads=, the number of heads, and without unit=")
        if self.heads is not None and self.heads < 1:
            raise ArgumentError(f"heads of edits.at must be 1 or more, not {self.heads}")
        if sum(isinstance(value, list | tuple | range) for value in given) > 1:
            raise ArgumentError("edits.at takes one list: of positions, or of heads or units, not of both")

    def __repr__(self) -> str:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return f"at({', '.join(f'{name}={value!r}' for name, value in given.items() if value is not None)})"

    def index(self, tensor: Tensor) -> tuple[Any, ...]:
        """The index of these positions, heads or units in a tensor."""
        needed = 1 + (self.position is not None) + (self.head is not None or self.unit is not None)
        if tensor.dim() < needed:
            raise EditError(f"{self} needs a tensor of {needed} axes or more; this one is {[*tensor.shape]}")
        before = () if self.position is None else (slice(None), _listed(self.position))
        if self.head is None and self.unit is None:
            return before
        return (*before, ..., self._units(tensor.shape[-1]))

    def _units(self, size: int) -> Any:
        if self.heads is None:
            return _listed(self.unit)
        if size % self.heads:
            raise EditError(f"the last axis has {size} units, which do not divide into {self.heads} equal heads")
        width, every = size // self.heads, range(self.heads)
        try:
            listed = isinstance(self.head, list | tuple | range)
            chosen = [every[head] for head in self.head] if listed else every[self.head]
        except IndexError:
            message = f"head must be from 0 to {self.heads - 1}, or count back from -1, not {self.head!r}"
            raise EditError(message) from None
        if isinstance(chosen, int):
            return slice(chosen * width, (chosen + 1) * width)
        if isinstance(chosen, range) and chosen.step == 1:
            return slice(chosen.start * width, chosen.stop * width)
        return [head * width + unit for head in chosen for unit in range(width)]


def _listed(value: Any) -> Any:
    return [*value] if isinstance(value, tuple | range) else value


def index_in(tensor: Tensor, place: Any) -> Any:
    """The index of a tensor that `at=` describes; None for the whole tensor."""
    if isinstance(place, str):
        raise ArgumentTypeError(f"at must be an index of the tensor, or hookline.edits.at(...), not {place!r}")
    return place.index(tensor) if isinstance(place, at) else place
