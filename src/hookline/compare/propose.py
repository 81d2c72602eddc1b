"""A proposal of which modules of two models belong together, where their paths do not say."""

import math
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any, TypeAlias

from torch import Tensor

from hookline.compare.fingerprint import fingerprint, is_fingerprint
from hookline.record.record import CallRecord, TensorInfo

Calls: TypeAlias = Mapping[str, list[CallRecord]]
LEAST_SHARED = 0.5  # of the modules that two containers hold between them


def propose(ours: Calls, theirs: Calls, known: Mapping[str, str]) -> dict[str, str]:
    """Partners for the paths of the first that have none, out of those of the second; `known` are the partners of other
    paths.

    Modules that call no others are matched by what they gave, where that was recorded and is nobody else's of their
    class and shape; then by order, class and shape; then by order and shape alone. Containers go with the modules that
    they hold.
    """
    leaves_a, leaves_b = _without_children(ours, [*ours, *known]), _without_children(theirs, [*theirs, *known.values()])
    found: dict[str, str] = {}
    for token in (_by_values, _by_class, _by_shape):
        left_a = [path for path in leaves_a if path not in found]
        left_b = [path for path in leaves_b if path not in found.values()]
        tokens_a, tokens_b = [token(ours[path]) for path in left_a], [token(theirs[path]) for path in left_b]
        pairing = _alone if token is _by_values else _in_order
        found |= {left_a[one]: left_b[other] for one, other in pairing(tokens_a, tokens_b)}
    return found | _containers(ours, theirs, {**known, **found}, found)


def _without_children(calls: Calls, every: Iterable[str]) -> list[str]:
    above = {".".join(names[:count]) for path in every for names in [path.split(".")] for count in range(len(names))}
    return [path for path in calls if path not in above]


def _alone(ours: list[Any], theirs: list[Any]) -> Iterator[tuple[int, int]]:
    """The places of what stands once on each side."""
    for place, token in enumerate(ours):
        if token is not None and ours.count(token) == theirs.count(token) == 1:
            yield place, theirs.index(token)


def _in_order(ours: list[Any], theirs: list[Any]) -> Iterator[tuple[int, int]]:
    for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        yield from zip(range(block.a, block.a + block.size), range(block.b, block.b + block.size), strict=True)


def _by_shape(calls: list[CallRecord]) -> Any:
    return tuple(info.shape for info in calls[0].outputs), len(calls)


def _by_class(calls: list[CallRecord]) -> Any:
    return calls[0].type, *_by_shape(calls)


def _by_values(calls: list[CallRecord]) -> Any:
    known = [marks_of(info) for info in calls[0].outputs]
    if not known or not all(norm and math.isfinite(norm) for norm, *_ in known):
        return None
    marks = ((f"{norm:.5g}", f"{low:.4g}", f"{high:.4g}", round(mean / norm, 4)) for norm, low, high, mean in known)
    return *_by_class(calls), tuple(marks)


def marks_of(info: TensorInfo) -> tuple[float, float, float, float]:
    """Norm, minimum, maximum and mean of a recorded tensor, from whatever was kept of it; zeros where nothing tells."""
    value, stats = info.value, info.stats
    if isinstance(value, Tensor) and value.is_floating_point():
        value = fingerprint(value)
    if is_fingerprint(value):
        total, _, norm, low, high = value["moments"].tolist()
        return norm, low, high, total / max(value["count"], 1)
    return (0.0, 0.0, 0.0, 0.0) if stats is None else (stats.norm, stats.min, stats.max, stats.mean)


def _containers(ours: Calls, theirs: Calls, partners: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Partners for containers: of those left in the second the one that holds most of the partners of what this holds,
    the nearest in depth and class where several hold as many."""
    free = [path for path in theirs if path not in new.values()]
    found: dict[str, str] = {}
    for path in (path for path in ours if path not in new):
        wanted = {partner for own, partner in partners.items() if _inside(own, path)}
        shares = {other: _share(wanted, other, partners) for other in free if other not in found.values()}
        best = max(shares.values(), default=0.0)
        if best < LEAST_SHARED:
            continue
        nearest = [other for other, share in shares.items() if share == best]
        kind = ours[path][0].type
        found[path] = min(nearest, key=lambda other: (theirs[other][0].type != kind, other.count(".")))
    return found


def _share(wanted: set[str], container: str, partners: Mapping[str, str]) -> float:
    held = {partner for partner in partners.values() if _inside(partner, container)}
    return len(wanted & held) / len(wanted | held) if wanted and held else 0.0


def _inside(path: str, container: str) -> bool:
    return path.startswith(f"{container}.") if container else bool(path)
