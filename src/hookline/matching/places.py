"""Match modules by place: by the same path, and realigned in lists where modules were inserted or removed."""

from collections.abc import Iterator
from typing import Any, TypeAlias

from hookline.matching.side import Side
from hookline.matching.twins import twins

Tree: TypeAlias = dict[str, list[str]]  # the paths right below each path
Places: TypeAlias = list[tuple[int, int]]


def in_place(ours: Side, theirs: Side) -> dict[str, str]:
    """The partner of each path of the first model: the same path in the second.

    If a module was inserted into a Sequential or ModuleList, or removed from it, the modules behind it are matched with
    those that agree with them. If one model wraps the other, paths are taken below the wrapped model.
    """
    trees = _tree(ours), _tree(theirs)
    found, left = {"": ""}, [_beginning(ours, theirs, *trees)]
    while left:
        one, other = left.pop()
        pairs = [*_below(ours, theirs, trees[0].get(one, []), trees[1].get(other, []))]
        found |= dict(pairs)
        left += pairs
    return found


def _beginning(ours: Side, theirs: Side, one: Tree, other: Tree) -> tuple[str, str]:
    """The modules below which names are equal: the two models, or one model and the only module of the other with the
    same children, which it wraps."""

    def held(side: Side, tree: Tree, path: str) -> list[Any]:
        return [(below.rpartition(".")[2], side.kind(below)) for below in tree.get(path, ())]

    whole = held(ours, one, ""), held(theirs, other, "")
    if whole[0] != whole[1]:
        wrapped = [("", path) for path in other if path and held(theirs, other, path) == whole[0]]
        wrapped += [(path, "") for path in one if path and held(ours, one, path) == whole[1]]
        if len(wrapped) == 1:
            return wrapped[0]
    return "", ""


def _tree(side: Side) -> Tree:
    found: Tree = {}
    known = {""}
    for path in side.classes:
        names = path.split(".")
        for count in range(1, len(names) + 1):
            whole = ".".join(names[:count])
            if whole not in known:
                known.add(whole)
                found.setdefault(".".join(names[: count - 1]), []).append(whole)
    return found


def _below(ours: Side, theirs: Side, one: list[str], other: list[str]) -> Iterator[tuple[str, str]]:
    """The partners among the children of two modules."""
    names_a, names_b = ([path.rpartition(".")[2] for path in paths] for paths in (one, other))
    by_name = {name: place for place, name in enumerate(names_b)}
    pairs = [(place, by_name[name]) for place, name in enumerate(names_a) if name in by_name]
    if all(name.isdigit() for name in (*names_a, *names_b)):
        pairs = _realigned(ours, theirs, one, other, pairs)
    yield from ((one[place], other[partner]) for place, partner in pairs)


def _realigned(ours: Side, theirs: Side, one: list[str], other: list[str], by_name: Places) -> Places:
    """Pairs of two lists of modules that are not by name, if more of them agree that way.

    That is: more pairs of one kind and no fewer twins, or more twins and no fewer pairs of one kind.
    """
    kinds = [ours.kind(path) for path in one], [theirs.kind(path) for path in other]
    if kinds[0] == kinds[1]:
        return by_name
    same = twins(ours, theirs, one, other, below=True)
    whose = {partner: path for path, partner in same.items()}
    tokens_a: list[Any] = [path if path in same else kind for path, kind in zip(one, kinds[0], strict=True)]
    tokens_b: list[Any] = [whose.get(path, kind) for path, kind in zip(other, kinds[1], strict=True)]

    def agreeing(pairs: Places) -> tuple[int, int]:
        alike = sum(kinds[0][place] == kinds[1][partner] for place, partner in pairs)
        return alike, sum(same.get(one[place]) == other[partner] for place, partner in pairs)

    numbers = {token: number for number, token in enumerate(dict.fromkeys([*tokens_a, *tokens_b]))}
    moved = [*_in_step([numbers[token] for token in tokens_a], [numbers[token] for token in tokens_b])]
    before, after = agreeing(by_name), agreeing(moved)
    better = after != before and all(new >= old for new, old in zip(after, before, strict=True))
    return moved if better else by_name


def _in_step(ours: list[Any], theirs: list[Any]) -> Iterator[tuple[int, int]]:
    """The places of as many equal tokens as two lists have in one order, and of as many others between two of these."""
    before = (-1, -1)
    for place, partner in [*_longest(ours, theirs), (len(ours), len(theirs))]:
        if place - before[0] == partner - before[1]:
            yield from zip(range(before[0] + 1, place), range(before[1] + 1, partner), strict=True)
        if place < len(ours):
            yield place, partner
        before = place, partner


def _longest(ours: list[Any], theirs: list[Any]) -> Iterator[tuple[int, int]]:
    """The places of the longest common subsequence of two lists, the earliest one."""
    lengths = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]  # from each pair of places on
    for one in reversed(range(len(ours))):
        row, below = lengths[one], lengths[one + 1]
        for other in reversed(range(len(theirs))):
            row[other] = 1 + below[other + 1] if ours[one] == theirs[other] else max(below[other], row[other + 1])
    one, other = 0, 0
    while one < len(ours) and other < len(theirs):
        if ours[one] == theirs[other]:
            yield one, other
            one, other = one + 1, other + 1
        elif lengths[one + 1][other] >= lengths[one][other + 1]:
            one += 1
        else:
            other += 1
