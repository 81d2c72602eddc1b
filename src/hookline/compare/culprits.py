"""The pairs of two runs: by how much they differ, which of them make a difference, by what was recorded."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from hookline.compare.difference import Pair
from hookline.compare.recorded import (
    Differences,
    compare_infos,
    compare_values,
    key_text,
    known,
    largest,
    missing,
    paired_leaves,
)
from hookline.errors import ArgumentError, ArgumentTypeError, CompareError
from hookline.matching.match import Matching
from hookline.matching.tensors import Difference, Tolerance
from hookline.model.keypath import named
from hookline.model.select import glob_to_regex
from hookline.record.record import CallRecord, Run, TensorInfo

Allowed: TypeAlias = Callable[[str], Tolerance | None]
Gradients: TypeAlias = Mapping[str, TensorInfo | None]  # None of a parameter that has none
FURTHER = 3.0  # times the error received, from which on an error sent back is a module's own
Tolerances: TypeAlias = Tolerance | Mapping[str, Tolerance] | None
"""One tolerance, or several by glob over paths, or None for those of `torch.testing`."""


def allowing(tolerances: Tolerances) -> Allowed:
    """The function that gives the tolerance for a path, None for that of the dtypes: of the globs that match it the
    first counts. ArgumentError for what is no (relative, absolute).

    >>> allowing({"head.**": (1e-2, 1e-3)})("head.linear"), allowing((0.0, 0.0))("head")
    ((0.01, 0.001), (0.0, 0.0))
    """
    given = tolerances if isinstance(tolerances, Mapping) else {} if tolerances is None else {"**": tolerances}
    for pattern, pair in given.items():
        if not (
            isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(each, int | float) for each in pair)
        ):
            raise ArgumentTypeError(f"a tolerance is a pair (relative, absolute), not {pair!r} (for {pattern!r})")
        if not all(each >= 0 for each in pair):
            raise ArgumentError(f"a tolerance is 0 or more, not {pair!r} (for {pattern!r})")
    rules = [(glob_to_regex(pattern), (float(pair[0]), float(pair[1]))) for pattern, pair in given.items()]
    return lambda path: next((pair for expression, pair in rules if expression.fullmatch(path)), None)


def refuse_idle(tolerances: Tolerances, pairs: list[Pair]) -> None:
    """CompareError where nothing was compared, ArgumentError where a glob of the tolerances fits no path that was."""
    if not pairs:
        none = "no call of the one belongs to a call of the other"
        raise CompareError(f"nothing to compare: {none}; give mapping= of the paths that belong together")
    for pattern in tolerances if isinstance(tolerances, Mapping) else ():
        expression = glob_to_regex(pattern)
        if not any(expression.fullmatch(pair.path_a) for pair in pairs):
            raise ArgumentError(f"tolerances: {pattern!r} matches none of the paths that are compared")


def compare_calls(run: Run, matching: Matching, allowed: Allowed) -> list[Pair]:
    """A Pair for each two calls that belong together, by all that both runs kept of them."""
    numbers = {id(one): number for number, (one, _) in enumerate(matching.pairs)}
    ended = in_order_of_ending(run)
    return [
        _pair(one, other, number, _parent(one, numbers), ended[id(one)], allowed(one.path))
        for number, (one, other) in enumerate(matching.pairs)
    ]


def _pair(
    one: CallRecord, other: CallRecord, number: int, parent: int | None, ended: int, allowed: Tolerance | None
) -> Pair:
    def gradients(a: Any, b: Any) -> Differences:
        """Those of tensors that require one in both or in neither: where one does not, its maker tells."""
        found = compare_values(a, b, of=lambda info: info.grad, allowed=allowed)
        missing = [key for key, each in found.items() if None in each.shapes]
        for keys, info, partner in paired_leaves(a, b, kind=TensorInfo) if missing else ():
            if info is not None and partner is not None and info.requires_grad != partner.requires_grad:
                found.pop(key_text(keys), None)
        return found

    given = named(one.args, one.kwargs), named(other.args, other.kwargs)
    return Pair(
        *(one.path, other.path, one.index, one.type, other.type, number, parent, ended),
        inputs=compare_values(*given, allowed=allowed, plain=True),
        outputs=compare_values(one.output, other.output, allowed=allowed, strict=False, plain=True),
        grads=gradients(one.output, other.output),
        grad_inputs=gradients(*given),
        failed=(one.error is None) != (other.error is None),
    )


def _parent(call: CallRecord, numbers: Mapping[int, int]) -> int | None:
    """The number of the nearest call around one that has a partner too."""
    around = call.parent
    while around is not None and id(around) not in numbers:
        around = around.parent
    return None if around is None else numbers[id(around)]


def in_order_of_ending(run: Run) -> dict[int, int]:
    """The place of each call, by its id, in the order in which calls end: one that ran inside another before it."""
    inside: dict[int | None, list[CallRecord]] = {}
    known = set(map(id, run.calls))
    for call in run.calls:
        inside.setdefault(id(call.parent) if id(call.parent) in known else None, []).append(call)
    order: list[CallRecord] = []
    left = [*inside.get(None, [])]
    while left:  # parents before what they hold, later ones first
        call = left.pop()
        order.append(call)
        left += inside.get(id(call), [])
    return {id(call): place for place, call in enumerate(reversed(order))}


def judge(pairs: list[Pair], verdicts: Mapping[int, bool | None]) -> list[Pair]:
    """The pairs with the word on whether they make a difference: the verdict on the pair of that number where there is
    one, else what was recorded. One that holds a call that does makes none."""
    holding: set[int] = set()
    received: dict[str, float] = {}
    for pair in pairs:
        received[pair.path_a] = max(received.get(pair.path_a, 0.0), _or(0.0, largest(pair.grads)))
    elsewhere = {pair.path_a for pair in pairs if not _agree(pair.inputs)}
    found = dict(enumerate(pairs))
    for pair in sorted(pairs, key=lambda pair: pair.ended):
        if not pair.differs:
            continue
        word = verdicts.get(pair.number)
        told = _by_record(pair, agreeing=pair.path_a not in elsewhere, received=received[pair.path_a])
        makes_it = False if pair.number in holding else told if word is None else word
        found[pair.number] = replace(pair, makes_it=makes_it)
        if (makes_it or pair.number in holding) and pair.parent is not None:
            holding.add(pair.parent)
    return [*found.values()]


def _by_record(pair: Pair, *, agreeing: bool, received: float) -> bool | None:
    """Whether the one gave something else on the same, has other buffers after calls on the same alone (`agreeing`), or
    sent back other gradients for the same; None where what it was given differs too, or was not kept.

    Small gradients agree within their tolerance though each is off by a percent, and a sum of them does not: so what is
    sent back must be further off than what any call of the module `received`, as shares of their norms.
    """
    if pair.gives_other:
        return True if _agree(pair.inputs) else None
    if pair.updates_other:
        return True if agreeing else None
    if not pair.grad_inputs:
        return None
    sent = max((_off(found) for found in pair.grad_inputs.values() if found.differs), default=0.0)
    return _agree(pair.grads) and sent > FURTHER * received


def _off(found: Difference) -> float:
    """How far off what differs is, as a share of its norm: NaN in one of them only is further than any number."""
    return math.inf if found.nan else _or(math.inf, found.error)


def _agree(differences: Differences) -> bool:
    return known(differences) and not any(found.differs for found in differences.values())


def with_weight_gradients(pairs: list[Pair], ours: Gradients, theirs: Gradients, allowed: Allowed) -> list[Pair]:
    """The pairs with what is known of the gradients of their modules' own parameters, given by name, among those that
    they sent back, those too that a parameter of both has in one of
    them only; of a module that is called several times it stands at the first."""
    found = []
    for pair in pairs:
        one, other = _own(ours, pair.path_a), _own(theirs, pair.path_b)
        shared = [name for name in one if name in other and pair.index == 0]
        each = {name: _of_gradients(one[name], other[name], allowed(pair.path_a)) for name in shared}
        extra = {name: difference for name, difference in each.items() if difference is not None}
        found.append(replace(pair, grad_inputs={**pair.grad_inputs, **extra}))
    return found


def _of_gradients(one: TensorInfo | None, other: TensorInfo | None, allowed: Tolerance | None) -> Difference | None:
    if one is None or other is None:
        return None if one is other else missing(one, other)
    return compare_infos(one, other, allowed=allowed)


def _own(gradients: Gradients, path: str) -> dict[str, TensorInfo | None]:
    split = ((name.rpartition("."), info) for name, info in gradients.items())
    return {name: info for (holder, _, name), info in split if holder == path}


def _or(instead: float, error: float) -> float:
    """An error, or what stands for one that is not known."""
    return instead if math.isnan(error) else error
