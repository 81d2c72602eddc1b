"""Statistics of a whole from those of its parts."""

import math
from collections.abc import Sequence

from hookline.record.measure import Stats


def whole(parts: Sequence[Stats]) -> Stats:
    """The statistics of all the elements of several tensors, from those of each.

    Every figure is exact but for the rounding of the parts' own; the histogram is None unless the parts' bins are the
    same.

    >>> whole([Stats(2, 0.0, 2.0, 1.0, 1.0, 2.0, 0.5, 0, 0), Stats(2, 1.0, 1.0, 1.0, 0.0, 2**0.5, 0.0, 0, 0)]).zeros
    0.25
    """
    filled = [part for part in parts if part.count]
    if len(filled) < 2:
        return filled[0] if filled else parts[0]
    count = sum(part.count for part in filled)
    zeros = sum(round(part.zeros * part.count) for part in filled) / count
    nan, inf = sum(part.nan for part in filled), sum(part.inf for part in filled)
    lowest, highest = min(part.min for part in filled), max(part.max for part in filled)
    if nan:
        return Stats(count, math.nan, math.nan, math.nan, math.nan, math.nan, zeros, nan, inf)
    if inf:
        return Stats(count, lowest, highest, lowest + highest, math.nan, math.inf, zeros, nan, inf)

    mean = math.fsum(part.mean * (part.count / count) for part in filled)
    spread = [math.hypot(part.std, part.mean - mean) * math.sqrt(part.count / count) for part in filled]
    std = math.hypot(*spread) if lowest < highest else 0.0
    norm = math.hypot(*(part.norm for part in filled))
    return Stats(count, lowest, highest, mean, std, norm, zeros, 0, 0, _histogram(filled))


def alike(parts: Sequence[Stats]) -> bool:
    """Whether all of these are the same figure for figure, NaN like NaN."""
    return len({repr(part) for part in parts}) == 1


def _histogram(parts: Sequence[Stats]) -> tuple[int, ...] | None:
    """The bins' counts together, where every part has the same bins."""
    counts = [part.histogram for part in parts if part.histogram is not None]
    if len(counts) < len(parts) or len({(part.min, part.max) for part in parts}) > 1:
        return None
    return tuple(map(sum, zip(*counts, strict=True)))
