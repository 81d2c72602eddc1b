"""Compare the matched calls of two runs: a Pair for each."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from hookline.compare.difference import Pair
from hookline.compare.recorded import Differences, compare_values, key_text, paired_leaves
from hookline.compare.tolerances import Allowed
from hookline.matching.match import Matching
from hookline.matching.tensors import Difference, Tolerance
from hookline.model.keypath import named
from hookline.record.record import CallRecord, Run, TensorInfo


def compare_calls(run: Run, matching: Matching, allowed: Allowed) -> list[Pair]:
    """A Pair for each matched call, by everything that both runs kept of it. Calls with other shapes are excused: they
    are listed, and do not count as different."""
    numbers = {id(one): number for number, (one, _) in enumerate(matching.pairs)}
    ended = in_order_of_ending(run)
    pairs = [
        _pair(one, other, number, _parent(one, numbers), ended[id(one)], allowed(one.path))
        for number, (one, other) in enumerate(matching.pairs)
    ]
    return _with_apart(pairs)


def _pair(
    one: CallRecord, other: CallRecord, number: int, parent: int | None, ended: int, allowed: Tolerance | None
) -> Pair:
    inputs = named(one.args, one.kwargs), named(other.args, other.kwargs)
    outputs = one.output, other.output
    return Pair(
        *(one.path, other.path, one.index, one.type, other.type, number, parent, ended),
        inputs=compare_values(*inputs, allowed=allowed, plain=True),
        outputs=compare_values(*outputs, allowed=allowed, strict=False, plain=True),
        grads=_compare_gradients(*outputs, allowed),
        grad_inputs=_compare_gradients(*inputs, allowed),
        failed=(one.error is None) != (other.error is None),
    )


def _compare_gradients(a: Any, b: Any, allowed: Tolerance | None) -> Differences:
    """The differences of the gradients of tensors that require one in both or in neither: where only one does, the
    module that made it tells."""
    found = compare_values(a, b, of=lambda info: info.grad, allowed=allowed)
    missing = [key for key, each in found.items() if None in each.shapes]
    for keys, info, partner in paired_leaves(a, b, kind=TensorInfo) if missing else ():
        if info is not None and partner is not None and info.requires_grad != partner.requires_grad:
            found.pop(key_text(keys), None)
    return found


def _parent(call: CallRecord, numbers: Mapping[int, int]) -> int | None:
    """The number of the nearest call around this one that has a partner."""
    return next((numbers[id(above)] for above in call.around() if id(above) in numbers), None)


def in_order_of_ending(run: Run) -> dict[int, int]:
    """The place of each call, by its id, in the order in which calls end: inner calls before outer ones."""
    inside: dict[int | None, list[CallRecord]] = {}
    known = set(map(id, run.calls))
    for call in run.calls:
        inside.setdefault(id(call.parent) if id(call.parent) in known else None, []).append(call)
    order: list[CallRecord] = []
    left = [*inside.get(None, [])]
    while left:  # parents before their children, later ones first
        call = left.pop()
        order.append(call)
        left += inside.get(id(call), [])
    return {id(call): place for place, call in enumerate(reversed(order))}


# Calls of other shapes


def _with_apart(pairs: list[Pair]) -> list[Pair]:
    """The pairs, those excused whose outputs differ in shape for a reason outside the module.

    - Their inputs differ in shape too, as where one model generates with a cache and the other without.
    - Or the models' own outputs agree, so the other shape is a matter of how they are written.

    A model's own call is excused only if another of its calls was compared.
    """
    given = {pair.number for pair in pairs if _of_other_shape(pair) and _has_other(pair.inputs.values())}
    own = [pair for pair in pairs if pair.own]
    compared = [pair for pair in own if pair.number not in given]
    agree = bool(compared) and not any(pair.output_differs for pair in compared)
    return [replace(pair, excused="shape") if _is_apart(pair, given, compared, agree=agree) else pair for pair in pairs]


def _is_apart(pair: Pair, given: set[int], compared: list[Pair], *, agree: bool) -> bool:
    if pair.own:
        return pair.number in given and bool(compared)
    return pair.number in given or (agree and _of_other_shape(pair))


def _of_other_shape(pair: Pair) -> bool:
    """Whether the outputs differ in nothing but shape."""
    differing = [found for found in pair.outputs.values() if found.differs]
    return bool(differing) and not pair.failed and all(found.other_shape for found in differing)


def _has_other(inputs: Iterable[Difference]) -> bool:
    return any(found.other_shape for found in inputs)
