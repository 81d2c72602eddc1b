"""rows: which positions of each example count."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookline.capturing.chance import chance
from hookline.capturing.misuse import MisuseError
from hookline.errors import ArgumentError, CaptureError

Positions: TypeAlias = int | Sequence[int]
"""A position among those that count, or several; -1 is the last."""
Choose: TypeAlias = Callable[[Any], Tensor]
"""A function of what the model received that gives a boolean mask [examples, positions]."""


class Rows:
    """Which rows of a tensor count, as `hookline.rows` makes them.

    A tensor has its examples along dimension 0 and its positions along dimension 1. `of(inputs, ...)` gives the
    positions of each example.
    """

    __slots__ = ("choose", "mask", "positions", "sample", "seed", "until")

    def __init__(
        self,
        mask: str | None,
        positions: tuple[int, ...] | None,
        sample: int | None,
        seed: int,
        choose: Choose | None,
        until: tuple[int, ...] | None = None,
    ) -> None:
        self.mask, self.positions, self.sample, self.seed, self.choose = mask, positions, sample, seed, choose
        self.until = until

    def of(self, inputs: Mapping[str | int, Any], examples: Sequence[int], length: int) -> list[Tensor]:
        """The positions that count of each example of a batch, ascending, as int64.

        - `inputs`: what the model received: arguments by number, keyword arguments by name;
        - `examples`: the number of each example in its data set, from which a sample follows;
        - `length`: how many positions there are.
        """
        return self._picked(self._counted(inputs, len(examples), length), examples)

    def of_more(
        self, inputs: Mapping[str | int, Any], examples: Sequence[int], length: int, *, behind: bool
    ) -> list[Tensor]:
        """The same for further positions of examples, which a later call computes: a step of `generate`, or a piece of
        its prompt. Of the steps all positions count that the mask shows, whatever was picked of the prompt.

        - `behind`: whether the last columns of a longer mask are those of these positions.
        """
        if length > 1 and behind and (self.positions is not None or self.sample is not None):
            raise MisuseError(
                "positions= and sample= cannot pick among the positions of a prompt that the model receives in pieces; "
                "leave out prefill_chunk_size"
            )
        given = self.mask is None or self.mask in inputs
        mask: Any
        mask, whose = self._mask(inputs) if given else (None, "")
        if is_mask(mask, len(examples)) and mask.shape[1] == length:
            return self._picked(positions_of(mask, whose), examples)
        if is_mask(mask, len(examples)) and mask.shape[1] > length and behind:
            return positions_of(mask[:, mask.shape[1] - length :], whose)
        return [torch.arange(1)] * len(examples) if length == 1 else self.of(inputs, examples, length)

    def _picked(self, counted: list[Tensor], examples: Sequence[int]) -> list[Tensor]:
        """Those of the positions that count that are to be taken."""
        if self.positions is not None:
            return [_at(self.positions, own, example) for own, example in zip(counted, examples, strict=True)]
        if self.sample is not None:
            return [self._sampled(own, example) for own, example in zip(counted, examples, strict=True)]
        return counted

    def _counted(self, inputs: Mapping[str | int, Any], count: int, length: int) -> list[Tensor]:
        """The positions that are not hidden, before some of them are picked."""
        mask, whose = self._mask(inputs)
        if mask is None:
            return [torch.arange(length)] * count
        if not is_mask(mask, count) or mask.shape[1] != length:
            shape = f"has shape {[*mask.shape]}" if isinstance(mask, Tensor) else f"is a {type(mask).__name__}"
            raise MisuseError(
                f"{whose} {shape}, and the tensor has {count} examples of {length} positions: [{count}, {length}] is "
                "needed; capture modules with other positions apart, or give rows= a function"
            )
        return positions_of(mask, whose)

    def _mask(self, inputs: Mapping[str | int, Any]) -> tuple[Any, str]:
        """The mask and what to call it; None where every position counts."""
        if self.choose is not None:
            return self.choose(inputs), "what the function of rows= gave"
        if self.mask is not None:
            return _argument(inputs, self.mask), f"the mask {self.mask!r}"
        return None, ""

    def _sampled(self, own: Tensor, example: int) -> Tensor:
        """Some of the positions, at random, the same ones whatever else is in the batch."""
        assert self.sample is not None
        if len(own) <= self.sample:
            return own
        picked = torch.randperm(len(own), generator=chance(f"{self.seed} {example}"))[: self.sample]
        return own[picked.sort().values]

    def __repr__(self) -> str:
        parts = {
            "mask": self.mask,
            "positions": self.positions,
            "sample": self.sample,
            "seed": self.seed if self.sample is not None else None,
            "until": self.until,
            "where": getattr(self.choose, "__qualname__", self.choose),
        }
        return f"rows({', '.join(f'{name}={value!r}' for name, value in parts.items() if value is not None)})"


def rows(
    where: Choose | None = None,
    *,
    mask: str | None = None,
    positions: Positions | None = None,
    sample: int | None = None,
    seed: int = 0,
    until: int | Sequence[int] | None = None,
) -> Rows:
    """Which positions of each example count: those of a mask, some of them by number, or a random sample.

    Tensors have examples along dimension 0 and positions (tokens, frames, patches) along dimension 1.

    - `mask`: the name of the model's argument that is a mask of shape [examples, positions], such as
      "attention_mask"; positions where it is 0 do not count.
    - `where`: a function that gives such a mask. It receives what the model received as one dict: arguments by number,
      keyword arguments by name.
    - `positions`: which of the positions that count: -1 is the last one of each example that is not padding.
    - `sample`: at most so many of them, at random by `seed` and the number of the example alone.
      With `calls="join"` both pick among the positions of the prompt; of the steps of `generate` all count.
    - `until`: the ids of tokens that end a sequence of `generate` (with `calls="join"`). The steps in which it receives
      such a token, and all after it, do not count: they run only because other examples of the batch go on. By default
      `eos_token_id` and `pad_token_id` of `model.generation_config`.

    `rows()` takes every position. Returns a `Rows` for `hookline.capture`. Raises ArgumentError where two of these
    exclude each other.

    >>> import torch, hookline
    >>> batch = {"attention_mask": torch.tensor([[1, 1, 0], [1, 1, 1]])}
    >>> hookline.rows(mask="attention_mask", positions=-1).of(batch, examples=[0, 1], length=3)
    [tensor([1]), tensor([2])]
    """
    if where is not None and not callable(where):
        raise ArgumentError(f"rows takes a function of the model's inputs, not {where!r}; a mask's name is mask=")
    if where is not None and mask is not None:
        raise ArgumentError("rows takes mask= or a function, not both: the function gives the mask")
    if positions is not None and sample is not None:
        raise ArgumentError("rows takes positions= or sample=, not both")
    if sample is not None and (type(sample) is not int or sample < 1):
        raise ArgumentError(f"sample must be a whole number from 1, not {sample!r}")
    if positions is not None:
        several = [positions] if not isinstance(positions, Sequence) else [*positions]
        if not several or not all(type(each) is int for each in several):
            raise ArgumentError(f"positions must be a whole number or several, not {positions!r}")
        positions = tuple(several)
    if until is not None:
        ends = [until] if not isinstance(until, Sequence) else [*until]
        if not all(type(each) is int for each in ends):
            raise ArgumentError(f"until must be the id of a token or several, not {until!r}")
        until = tuple(ends)
    return Rows(mask, positions, sample, seed, where, until)


def is_mask(mask: Any, count: int) -> bool:
    """Whether something has the shape of a mask: [examples, positions]."""
    return isinstance(mask, Tensor) and mask.dim() == 2 and len(mask) == count


def positions_of(mask: Tensor, whose: str) -> list[Tensor]:
    """Where a mask is not 0, of each example."""
    shown = mask.detach().cpu()
    if shown.is_floating_point() and bool((shown < 0).any()):
        raise MisuseError(f"{whose} has negative numbers: it is added to scores; 0 is needed where nothing counts")
    return [row.nonzero()[:, 0] for row in shown.bool()]


def _at(positions: tuple[int, ...], own: Tensor, example: int) -> Tensor:
    """The positions at these places among those of one example."""
    try:
        return own[torch.tensor(positions)]
    except IndexError:
        raise CaptureError(
            f"example {example} has {len(own)} positions that count, and none at {', '.join(map(str, positions))}"
        ) from None


def _argument(inputs: Mapping[str | int, Any], name: Any) -> Any:
    """An argument of the model by its name."""
    if name in inputs:
        return inputs[name]
    raise MisuseError(
        f"the model received no argument {name!r}, which rows= takes as the mask; it received "
        f"{', '.join(map(str, inputs)) or 'none'}"
    )
