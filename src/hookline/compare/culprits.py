"""Find the culprits among the pairs: by running modules alone, and by what was recorded."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from hookline.compare.difference import Pair
from hookline.compare.recorded import Differences, known, largest
from hookline.compare.rounding import fold_excused, is_small, with_rounding, words_of_runs
from hookline.matching.tensors import Difference

FURTHER = 3.0  # times the error of the gradient received, above which an error returned is the module's own


def judge_models(pairs: list[Pair], verdicts: Mapping[int, bool | None], limits: Mapping[int, float]) -> list[Pair]:
    """The pairs of two models with the culprits marked, and what rounding explains excused. By number of the pair,
    `verdicts` says whether a module that was run alone is a culprit, `limits` the error that rounding explains."""
    words = {
        number: False if verdict is None and is_small(pairs[number], limits.get(number, 0.0)) else verdict
        for number, verdict in verdicts.items()
    }
    pairs = judge(pairs, words)
    pairs = with_rounding(pairs, {number for number in limits if words.get(number) is False})
    return judge(
        pairs, {number: word for number, word in words.items() if pairs[number].output_differs}
    )  # backward too


def judge_runs(pairs: list[Pair], coarser: torch.dtype | None) -> list[Pair]:
    """The pairs of two recorded runs with the culprits marked, as far as the records show. Where the runs computed in
    other dtypes, of which `coarser` is one, what rounding explains is excused."""
    words = words_of_runs(pairs, coarser) if coarser is not None else {}
    cleared = {number for number, word in words.items() if not word}
    return fold_excused(with_rounding(judge(pairs, words), cleared))


def judge(pairs: list[Pair], verdicts: Mapping[int, bool | None]) -> list[Pair]:
    """The pairs with `is_culprit` set: whether each is a culprit, by the verdict on its number or else by what was
    recorded. A pair that contains a culprit is not one."""
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
        is_culprit = False if pair.number in holding else told if word is None else word
        found[pair.number] = replace(pair, is_culprit=is_culprit)
        if (is_culprit or pair.number in holding) and pair.parent is not None:
            holding.add(pair.parent)
    return [*found.values()]


def _by_record(pair: Pair, *, agreeing: bool, received: float) -> bool | None:
    """Whether a pair is a culprit by its record: its outputs differ on the same inputs, its buffers differ after calls
    on the same inputs only (`agreeing`), or it returns other gradients for the same ones. None if its inputs differ
    too, or were not kept.

    Small gradients agree within their tolerance though each is off by a percent, and their sum does not agree. So the
    gradients returned must be further off than those any call of the module `received`, as shares of their norms.
    """
    if pair.output_differs:
        return True if _agree(pair.inputs) else None
    if pair.buffers_differ:
        return True if agreeing else None
    if not pair.grad_inputs:
        return None
    sent = max((_off(found) for found in pair.grad_inputs.values() if found.differs), default=0.0)
    return _agree(pair.grads) and sent > FURTHER * received


def _off(found: Difference) -> float:
    """How far off a gradient is, as a share of its norm; infinitely if only one of the two is NaN."""
    return math.inf if found.nan else _or(math.inf, found.error)


def _agree(differences: Differences) -> bool:
    return known(differences) and not any(found.differs for found in differences.values())


def _or(instead: float, error: float) -> float:
    """An error, or `instead` if it is not known."""
    return instead if math.isnan(error) else error
