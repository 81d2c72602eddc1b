"""Excuse gradients and buffers that differ by rounding alone: rounding one model changes them as much."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

import torch

from hookline.compare.difference import Pair
from hookline.compare.model_run import ComparedModel, ModelRun, compare_model_runs, run_model
from hookline.compare.recorded import Differences
from hookline.compare.rounded_model import Rounding
from hookline.compare.rounding import ARITHMETIC, ELEMENT, coarser_dtype
from hookline.compare.tolerances import Allowed
from hookline.matching.match import match
from hookline.matching.tensors import EXACT, Difference
from hookline.messages import dtype_name

TIMES = 4.0  # times the noise that a difference may have: functions between modules round too, and are not seen
CANCELLING = 64.0  # the same where rounding changes a gradient by its whole norm, as for a bias before a batch norm
SCALES = (1.0, 1.19, 1.41)  # what is rounded is scaled by these, one run each: other numbers are rounded up, and down
Noise: TypeAlias = Mapping[int, list[Pair]]  # by the number of a pair: of its call in a model, and in each rounded run


def fold_noise(
    pairs: list[Pair], sides: tuple[ComparedModel, ComparedModel], runs: tuple[ModelRun, ModelRun], allowed: Allowed
) -> list[Pair]:
    """The pairs, where gradients and buffers that differ by rounding alone no longer count as different, if the models
    compute in other dtypes and no tolerance was given. The model with the finer dtype runs again, rounded."""
    dtype = coarser_dtype(pairs)
    if dtype is None or not any(each.differs for pair in pairs for each in _behind(pair)):
        return pairs
    finer = _finer(pairs, dtype)
    noise: dict[tuple[str, int], list[Pair]] = {}
    with suppress(Exception):  # a model may not run so; then a few units in the last place are folded
        for scale in SCALES:
            for pair in _rounded_pairs(sides[finer], runs[finer], Rounding(dtype, scale)):
                noise.setdefault((pair.path_a, pair.index), []).append(pair)
    keys = {pair.number: ((pair.path_a, pair.path_b)[finer], pair.index) for pair in pairs}
    known = {number: noise[key] for number, key in keys.items() if key in noise}
    folded = _fold(pairs, known, dtype)
    return [new if allowed(old.path_a) is None else old for old, new in zip(pairs, folded, strict=True)]


def _behind(pair: Pair) -> Iterator[Difference]:
    """The differences of what is not an output: gradients and buffers."""
    for part in (pair.grads, pair.grad_inputs, pair.buffers):
        yield from part.values()


def _finer(pairs: list[Pair], coarser: torch.dtype) -> int:
    """Which model computes in the finer dtype: 0 for the first, 1 for the second."""
    dtypes = Counter(found.dtypes for pair in pairs for found in pair.outputs.values() if None not in found.dtypes)
    most, _ = dtypes.most_common(1)[0]
    return int(most[0] == dtype_name(coarser))


def _rounded_pairs(side: ComparedModel, exact: ModelRun, rounding: Rounding) -> list[Pair]:
    """The calls of a model paired with those that it makes rounded."""
    rounded = run_model(side, rounding=rounding)
    matching = match(exact.run, rounded.run, modules=(side.modules, side.modules))
    same = {path: path for path in matching.paths}
    return compare_model_runs(exact, rounded, matching, same, side.keep, lambda _: EXACT)


def _fold(pairs: list[Pair], noise: Noise, dtype: torch.dtype) -> list[Pair]:
    """The pairs, where gradients and buffers that rounding explains no longer count as different: those off by no more
    than a few times what rounding to this dtype changed in one of the models, or than a few units in the last place.
    What is NaN or infinite in only one of them still counts."""
    least = ARITHMETIC * torch.finfo(dtype).eps
    folded = []
    for pair in pairs:
        known = noise.get(pair.number, [])
        parts: dict[str, Any] = {name: getattr(pair, name) for name in ("grads", "grad_inputs", "buffers")}
        for name, part in parts.items():
            parts[name] = _folded(part, [getattr(each, name) for each in known], least)
        folded.append(replace(pair, **parts))
    return folded


def _folded(found: Differences, noise: list[Differences], least: float) -> Differences:
    return {
        key: replace(each, differs=False)
        if each.differs and _explained(each, [part[key] for part in noise if key in part], least)
        else each
        for key, each in found.items()
    }


def _explained(found: Difference, noise: list[Difference], least: float) -> bool:
    if found.nan or math.isnan(found.error) or math.isnan(found.absolute) or found.other_shape:
        return False
    if found.error <= least:
        return True
    error = max((each.error for each in noise if not math.isnan(each.error)), default=0.0)
    absolute = max((each.absolute for each in noise if not math.isnan(each.absolute)), default=0.0)
    times = TIMES if error < 1 else CANCELLING
    return found.error <= times * error and found.absolute <= ELEMENT * times * absolute
