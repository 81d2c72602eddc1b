"""Whether two shapes can hold the same values in the same order, such as a flattened batch."""

import math
from typing import TypeAlias

Shape: TypeAlias = tuple[int, ...]


def same_layout(one: Shape, other: Shape) -> bool:
    """Whether tensors of these shapes can be compared element by element, in memory order.

    The shapes must be equal except for leading axes of 1, or one must merge leading axes of the other, as a flattened
    batch does. The last axis must be the same: [8] does not match [8, 1].

    >>> same_layout((1, 16, 128), (16, 128)), same_layout((2, 16, 61), (32, 61)), same_layout((8,), (8, 1))
    (True, True, False)
    """
    one, other = _without_leading(one), _without_leading(other)
    if one == other:
        return True
    if math.prod(one) != math.prod(other) or not math.prod(one) or -1 in (*one, *other):
        return False
    shared = _shared(one, other)
    heads = one[: len(one) - shared], other[: len(other) - shared]
    merged = any(len(head) == 1 for head in heads)
    return merged and (shared > 0 or 1 not in (one[-1], other[-1]))


def _without_leading(shape: Shape) -> Shape:
    first = next((place for place, size in enumerate(shape) if size != 1), len(shape))
    return shape[first:]


def _shared(one: Shape, other: Shape) -> int:
    """How many of the last axes are the same in both."""
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count
