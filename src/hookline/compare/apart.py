"""Calls that two models made with other shapes, so that they cannot be compared: they are listed, and no difference."""

from collections.abc import Iterable
from dataclasses import replace

from hookline.compare.difference import Pair
from hookline.matching.tensors import Difference


def with_apart(pairs: list[Pair]) -> list[Pair]:
    """The pairs, those set apart whose outputs have another shape for a reason outside the module.

    - Their inputs have another shape too, as where one model generates with a cache and the other without.
    - Or the models' own outputs agree, so the other shape is a matter of how they are written.

    A model's own call is set apart only where another one of its calls was compared.
    """
    given = {pair.number for pair in pairs if _of_other_shape(pair) and _has_other(pair.inputs.values())}
    own = [pair for pair in pairs if pair.own]
    compared = [pair for pair in own if pair.number not in given]
    agree = bool(compared) and not any(pair.gives_other for pair in compared)
    return [replace(pair, excused="shape") if _is_apart(pair, given, compared, agree=agree) else pair for pair in pairs]


def _is_apart(pair: Pair, given: set[int], compared: list[Pair], *, agree: bool) -> bool:
    if pair.own:
        return pair.number in given and bool(compared)
    return pair.number in given or (agree and _of_other_shape(pair))


def _of_other_shape(pair: Pair) -> bool:
    """Whether nothing but the shape of an output tells a difference."""
    differing = [found for found in pair.outputs.values() if found.differs]
    return bool(differing) and not pair.failed and all(found.other_shape for found in differing)


def _has_other(inputs: Iterable[Difference]) -> bool:
    return any(found.other_shape for found in inputs)
