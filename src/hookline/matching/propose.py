"""Propose which modules of two models belong together where their paths do not show it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from hookline.matching.side import Calls, Side, by_class, by_shape, by_values
from hookline.matching.twins import alone, twins

LEAST_SHARED = 0.5  # the share of modules in two containers that must be partners


def propose(ours: Side, theirs: Side, known: Mapping[str, str]) -> dict[str, str]:
    """Propose partners for called paths of the first side that have none; `known` are the partners of other paths.

    Modules are matched in this order:
    1. by nearly equal weights, if both sides have their models;
    2. modules without children by recorded output values that are unique for their class and shape;
    3. modules without children by class and shape in call order, first inside containers that hold partners;
    4. the same by shape alone;
    5. containers by the modules that they hold.
    """
    found = twins(ours, theirs, ours.calls, theirs.calls) if ours.modules and theirs.modules else {}
    leaves_a = _without_children(ours.calls, [*ours.calls, *known])
    leaves_b = _without_children(theirs.calls, [*theirs.calls, *known.values()])
    left_a, left_b = _left(leaves_a, leaves_b, found)
    tokens = [by_values(ours.calls[path]) for path in left_a], [by_values(theirs.calls[path]) for path in left_b]
    found |= {left_a[one]: left_b[other] for one, other in alone(*tokens)}

    for token in (_of_class, _of_shape):
        for holder_a, holder_b in [*_holders({**known, **found}), ("", "")]:
            left_a, left_b = _left(leaves_a, leaves_b, found)
            left_a, left_b = _within(left_a, holder_a), _within(left_b, holder_b)
            tokens = [token(ours, path) for path in left_a], [token(theirs, path) for path in left_b]
            found |= {left_a[one]: left_b[other] for one, other in _in_order(*tokens)}
    return found | _containers(ours.calls, theirs.calls, {**known, **found}, found)


def _without_children(calls: Calls, every: Iterable[str]) -> list[str]:
    above = {holder for path in every for holder in _above(path)}
    return [path for path in calls if path not in above]


def _left(ours: list[str], theirs: list[str], found: Mapping[str, str]) -> tuple[list[str], list[str]]:
    taken = set(found.values())
    return [path for path in ours if path not in found], [path for path in theirs if path not in taken]


def _within(paths: list[str], holder: str) -> list[str]:
    return [path for path in paths if path.startswith(f"{holder}.")] if holder else paths


def _of_class(side: Side, path: str) -> Any:
    return by_class(side.calls[path])


def _of_shape(side: Side, path: str) -> Any:
    """The token by shape, and whether the module has weights: one without never matches one with weights."""
    module = side.modules.get(path)
    return *by_shape(side.calls[path]), module is not None and any(True for _ in module.parameters())


def _in_order(ours: list[Any], theirs: list[Any]) -> Iterator[tuple[int, int]]:
    for block in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
        yield from zip(range(block.a, block.a + block.size), range(block.b, block.b + block.size), strict=True)


# Containers


def _above(path: str) -> list[str]:
    """The paths of all containers of a module, the model included; empty for the model."""
    names = path.split(".")
    return [".".join(names[:count]) for count in range(len(names))] if path else []


def _shares(partners: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """For each pair of containers the share of their modules with a partner that are partners of each other."""
    both: Counter[tuple[str, str]] = Counter()
    ours, theirs = Counter[str](), Counter[str]()
    for path, partner in partners.items():
        above_a, above_b = _above(path), _above(partner)
        ours.update(above_a)
        theirs.update(above_b)
        both.update((one, other) for one in above_a for other in above_b)
    found: dict[str, dict[str, float]] = {}
    for (one, other), count in both.items():
        found.setdefault(one, {})[other] = count / (ours[one] + theirs[other] - count)
    return found


def _holders(partners: Mapping[str, str]) -> list[tuple[str, str]]:
    """Pairs of containers that hold partners of each other, the innermost first."""
    found = []
    for path, shares in _shares(partners).items():
        best = max(shares.values())
        if path and best >= LEAST_SHARED:
            found.append((path, max((other for other in shares if shares[other] == best), key=len)))
    return sorted(found, key=lambda pair: -pair[0].count("."))


def _containers(ours: Calls, theirs: Calls, partners: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Partners for containers: the one in the second that shares the most partners; among equals, the nearest in class
    and depth."""
    taken = set(new.values())
    free = dict.fromkeys(path for path in theirs if path not in taken)
    every = _shares(partners)
    found: dict[str, str] = {}
    for path in (path for path in ours if path not in new):
        shares = {other: share for other, share in every.get(path, {}).items() if other in free}
        best = max(shares.values(), default=0.0)
        if best < LEAST_SHARED:
            continue
        kind = ours[path][0].type
        nearest = [other for other in free if shares.get(other) == best]
        found[path] = min(nearest, key=lambda other: (theirs[other][0].type != kind, other.count(".")))
        del free[found[path]]
    return found
