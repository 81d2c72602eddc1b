"""The steps of `generate` for a batch: where each example ends, and its rows of all steps put together."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Module

from hookline.capturing.block import Block


def joined_in_examples(blocks: Sequence[Block], over: Sequence[int], *, last: bool) -> Block:
    """Blocks of the same examples, each example's rows one after another; of an example that had ended, those of the
    steps before. With `last` only the rows of the last of these."""
    chosen = []
    for example, end in enumerate(over):
        own = [place for place, block in enumerate(blocks) if block.step < end]
        chosen.append([(place, example) for place in (own[-1:] if last else own)])

    def whole(tensors: Sequence[Tensor | None]) -> Tensor | None:
        there = [tensor for tensor in tensors if tensor is not None]
        if len(there) < len(blocks):
            return None
        parts = [torch.split(tensor, block.counts) for tensor, block in zip(there, blocks, strict=True)]
        return torch.cat([there[0][:0], *(parts[place][example] for own in chosen for place, example in own)])

    values = whole([block.values for block in blocks])
    assert values is not None
    return Block(
        values,
        [sum(blocks[place].counts[example] for place, example in own) for own in chosen],
        whole([block.positions for block in blocks]),
        whole([block.tokens for block in blocks]),
    )


def ids_of_ends(model: Module) -> tuple[list[int], list[int]]:
    """The ids of the tokens that end a sequence of `generate`, and of those that it pads with."""
    config = getattr(model, "generation_config", None)

    def ids(name: str) -> list[int]:
        found = getattr(config, name, None)
        return [each for each in (found if isinstance(found, list | tuple) else [found]) if isinstance(each, int)]

    return ids("eos_token_id"), ids("pad_token_id")


def ends_of(steps: Sequence[Tensor | None], count: int, ends: Sequence[int], pads: Sequence[int]) -> list[int]:
    """How many calls of the model count of each example: the prompt's, and those before it had ended.

    An example has ended in the step that receives a token of `ends`, or in which padding begins that goes on to the
    last step. What runs from there on runs only because other examples go on. So one of them goes on in the last step:
    where none seems to, the padding that begins last was generated.

    >>> ends_of([torch.tensor([7, 7]), torch.tensor([2, 0]), torch.tensor([0, 7])], 2, ends=[2], pads=[0])
    [2, 4]
    """
    over = len(steps) + 1
    padded, ended = [over] * count, [over] * count
    for example in range(count):
        fed = [None if ids is None else int(ids[example]) for ids in steps]
        while padded[example] > 1 and fed[padded[example] - 2] in pads:
            padded[example] -= 1
        ended[example] = next((step for step, token in enumerate(fed, 1) if token in ends), over)
    if max(map(min, padded, ended), default=over) < over:
        last = max((step for step, end in zip(padded, ended, strict=True) if end == over), default=None)
        padded = [over if step == last and end == over else step for step, end in zip(padded, ended, strict=True)]
    return [min(end, step) for end, step in zip(ended, padded, strict=True)]
