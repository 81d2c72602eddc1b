"""Block: the rows of some examples of one point, in memory."""

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from hookline.messages import dtype_name

Kind: TypeAlias = tuple[tuple[int, ...], str]
"""The shape of a row, and the name of its dtype."""


@dataclass(slots=True)
class Block:
    """The rows of some examples of one point.

    - `values`: [rows, ...]; `counts`: how many rows each example has;
    - `positions`: of each row, where in its example it was; `tokens`: the token ids there; None without `rows=`;
    - `step`: in which step of `generate` they were made; 0 is the prompt.
    """

    values: Tensor
    counts: list[int]
    positions: Tensor | None = None
    tokens: Tensor | None = None
    step: int = 0

    @property
    def kind(self) -> Kind:
        """The shape of a row, and the dtype."""
        return tuple(self.values.shape[1:]), dtype_name(self.values.dtype)

    def part(self, begin: int, end: int) -> "Block":
        """Some of its examples."""
        if (begin, end) == (0, len(self.counts)):
            return self
        own = slice(sum(self.counts[:begin]), sum(self.counts[:end]))
        return Block(
            self.values[own],
            self.counts[begin:end],
            None if self.positions is None else self.positions[own],
            None if self.tokens is None else self.tokens[own],
        )

    def empty(self, count: int) -> "Block":
        """A block like this one of so many examples without rows."""
        none = slice(0, 0)
        return Block(
            self.values[none],
            [0] * count,
            None if self.positions is None else self.positions[none],
            None if self.tokens is None else self.tokens[none],
        )
