"""How much rounding explains where two models compute in dtypes of different precision."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hookline.compare.difference import Pair
from hookline.compare.recorded import Differences, largest

ARITHMETIC = 2.0  # errors of a module's own, in units of the coarser dtype's eps
ELEMENT = 4.0  # times as far off as the norm may a single element be
FURTHER = 3.0  # times its inputs' error that a module's outputs may be off in runs, where no module is run alone


def coarser_dtype(pairs: Iterable[Pair]) -> torch.dtype | None:
    """The coarser of the two dtypes that most outputs have; None if both models compute in one precision."""
    kinds = Counter(found.dtypes for pair in pairs for found in pair.outputs.values() if None not in found.dtypes)
    floats = {names: count for names, count in kinds.items() if all(_eps(name) for name in names)}
    if not floats:
        return None
    names = max(floats, key=lambda each: floats[each])
    one, other = (_eps(name) for name in names)
    if one == other:
        return None
    dtype: torch.dtype = getattr(torch, str(names[0] if one > other else names[1]))
    return dtype


def _eps(name: str | None) -> float:
    dtype = getattr(torch, name or "", None)
    is_float = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    return torch.finfo(dtype).eps if is_float and dtype is not None else 0.0


def bounds(pairs: list[Pair], dtype: torch.dtype) -> dict[int, float]:
    """The error that rounding to a dtype explains in each pair, as a share of the norm: that of one module's
    arithmetic, plus the root of the number of calls inside, since errors of both signs add up like that."""
    inside: Counter[int] = Counter()
    for pair in reversed(pairs):  # calls inside come after their container
        if pair.parent is not None:
            inside[pair.parent] += 1 + inside[pair.number]
    eps = torch.finfo(dtype).eps
    return {pair.number: eps * (ARITHMETIC + math.sqrt(1 + inside[pair.number])) for pair in pairs}


def within(one: Tensor, other: Tensor, bound: float) -> bool:
    """Whether two tensors are as close as rounding explains: as a whole, and in each element, relative to the element
    or to the root mean square of all, whichever is larger.

    >>> a = torch.linspace(-1, 1, 100)
    >>> within(a, a.bfloat16(), 0.02), within(a, 1.2 * a, 0.02)
    (True, False)
    """
    if one.shape != other.shape and one.numel() != other.numel():
        return False
    a, b = one.detach().double().reshape(-1), other.detach().double().reshape(-1).to(one.device)
    finite = a.isfinite() & b.isfinite()
    if not bool(((a == b) | (a.isnan() & b.isnan()) | finite).all()):
        return False
    a, b = a[finite], b[finite]
    if not a.numel():
        return True
    error, typical = (b - a).abs(), float(a.square().mean().sqrt())
    whole = float(error.norm()) <= bound * float(a.norm())
    return whole and bool((error <= ELEMENT * bound * a.abs().clamp(min=typical)).all())


def is_small(pair: Pair, bound: float) -> bool:
    """Whether the recorded outputs of a pair are off by no more than this share of the norm."""
    differing = [found for found in pair.outputs.values() if found.differs]
    return not pair.failed and all(not found.nan and found.error <= bound for found in differing)


def words_of_runs(pairs: list[Pair], dtype: torch.dtype) -> dict[int, bool]:
    """Whether each pair of two runs is a culprit beyond rounding, as far as its inputs show: its outputs are off by
    more than a few times the error of its inputs, and by more than its own arithmetic explains."""
    limits = bounds(pairs, dtype)
    known = {pair.number: largest(pair.inputs) for pair in pairs if pair.inputs and pair.output_differs}
    return {
        number: not is_small(pairs[number], limits[number] + FURTHER * received)
        for number, received in known.items()
        if math.isfinite(received) and not any(found.nan for found in pairs[number].inputs.values())
    }


def with_rounding(pairs: list[Pair], cleared: set[int]) -> list[Pair]:
    """The pairs after `judge`, those that differ by rounding alone excused. `cleared` are those that differ no more
    than rounding explains, each taken on its own.

    Until the first culprit ends, every difference is rounding; after it a pair may show what the culprit passed on.
    Gradients and buffers are left as they are: see `noise`.
    """
    made = [pair.ended for pair in pairs if pair.is_culprit]
    first = min(made, default=math.inf)
    holding = _holders(pairs)
    found = []
    for pair in pairs:
        by_rounding = pair.output_differs and not pair.is_culprit and pair.number not in holding and pair.ended < first
        excused = by_rounding and pair.number in cleared
        found.append(replace(pair, excused="rounding", is_culprit=None) if excused else pair)
    return found


def _holders(pairs: list[Pair]) -> set[int]:
    """The numbers of the pairs around the culprits."""
    around: set[int] = set()
    parents: Mapping[int, int | None] = {pair.number: pair.parent for pair in pairs}
    for pair in pairs:
        above = pair.parent if pair.is_culprit else None
        while above is not None and above not in around:
            around.add(above)
            above = parents[above]
    return around


def fold_excused(pairs: list[Pair]) -> list[Pair]:
    """The pairs of two runs, where gradients and buffers do not count if rounding explains the outputs: without the
    models nothing shows how much rounding explains of them."""
    return [replace(pair, **_all_folded(pair)) if pair.excused == "rounding" else pair for pair in pairs]


def _all_folded(pair: Pair) -> dict[str, Any]:
    parts: dict[str, Differences] = {name: getattr(pair, name) for name in ("grads", "grad_inputs", "buffers")}
    return {
        name: {key: each if each.nan else replace(each, differs=False) for key, each in part.items()}
        for name, part in parts.items()
    }
