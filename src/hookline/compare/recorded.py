"""Compare two recorded values by what both runs kept: tensors, fingerprints or statistics."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookline.matching.fingerprint import compare_fingerprints, fingerprint, is_fingerprint
from hookline.matching.layout import same_layout
from hookline.matching.tensors import (
    EQUAL,
    EXACT,
    SAME,
    Difference,
    Tolerance,
    alike,
    apart,
    compare,
    largest_finite,
    ratio,
    tolerance,
)
from hookline.messages import dtype_name
from hookline.model.tensors import SCALARS, leaves, mirror
from hookline.record.record import TensorInfo
from hookline.record.statistics import Stats

Keys: TypeAlias = tuple[str | int, ...]
Differences: TypeAlias = dict[str, Difference]

ABSENT = object()
LONGEST = 60  # characters of a plain value that are shown


def compare_infos(a: TensorInfo, b: TensorInfo, *, allowed: Tolerance | None = None) -> Difference:
    """Compare what two runs kept of a tensor: its elements if both have them, else fingerprints, else statistics, else
    shape and dtype alone, by which two tensors of one shape do not differ.

    Raises ChangedTensorError if a tensor that was kept by reference was changed since.
    """
    allowed = allowed if allowed is not None else tolerance(a.dtype, b.dtype)
    one, other = a.value, b.value
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return compare(one, other, allowed=allowed)
    told: dict[str, Any] = {
        "shapes": (tuple(a.shape), tuple(b.shape)),
        "dtypes": (dtype_name(a.dtype), dtype_name(b.dtype)),
    }
    if not same_layout(*told["shapes"]) or not alike(a.dtype, b.dtype):
        return Difference(**told, differs=True, identical=False, basis="shape", tolerance=allowed)
    one, other = _as_fingerprint(one), _as_fingerprint(other)
    if is_fingerprint(one) and is_fingerprint(other):
        return compare_fingerprints(one, other, told, allowed)
    if a.stats is not None and b.stats is not None:
        return Difference(**told, **_of_stats(a.stats, b.stats, allowed), basis="statistics", tolerance=allowed)
    return Difference(**told, differs=False, identical=False, basis="shape", tolerance=allowed)


def compare_values(
    a: Any,
    b: Any,
    *,
    kind: type = TensorInfo,
    of: Callable[[Any], Any] = lambda found: found,
    allowed: Tolerance | None = None,
    strict: bool = True,
    plain: bool = False,
) -> Differences:
    """Compare the tensors in two nested values; the differences, by the keys that lead to them in `a`.

    - `of`: what is compared of each tensor, such as its gradient, or None.
    - `strict`: False ignores a tensor that only one value has, if they share others.
    - `plain`: True also compares numbers, texts, booleans and Nones, and lists those that differ.

    If the two are nested differently and have as many tensors, these are matched by their order.
    """
    comparing = compare if kind is Tensor else compare_infos
    found = {}
    for keys, one, other in paired_leaves(a, b, kind=kind):
        one, other = (None if part is None else of(part) for part in (one, other))
        if one is not None and other is not None:
            found[key_text(keys)] = comparing(one, other, allowed=allowed)
        elif one is not None or other is not None:
            found[key_text(keys)] = missing(one, other)
    beside = [each.tolerance for each in found.values()]
    shared = any(None not in each.shapes for each in found.values())
    for keys, one, other in paired_plain(a, b, kind=kind) if plain else ():
        both = one is not ABSENT and other is not ABSENT
        shared = shared or both
        if both and repr(one) != repr(other):
            found[key_text(keys)] = compare_plain(one, other, allowed=allowed, beside=beside)
        elif not both and not strict:
            found.setdefault(key_text(keys), _missing_plain(one, other))
    return found if strict or not shared else {key: _unless_missing(each) for key, each in found.items()}


def _unless_missing(found: Difference) -> Difference:
    return replace(found, differs=False) if None in found.shapes else found


def paired_leaves(a: Any, b: Any, *, kind: type) -> Iterator[tuple[Keys, Any, Any]]:
    """The keys of each tensor in two nested values, and the two tensors; None for a missing one."""
    ones, others = ([*leaves(mirror(value, lambda part: part, kind=kind), kind=kind)] for value in (a, b))
    by_key = dict(others)
    if len(ones) == len(others) and {keys for keys, _ in ones} != by_key.keys():
        yield from ((keys, one, other) for (keys, one), (_, other) in zip(ones, others, strict=True))
        return
    yield from ((keys, one, by_key.get(keys)) for keys, one in ones)
    own = {keys for keys, _ in ones}
    yield from ((keys, None, other) for keys, other in others if keys not in own)


def paired_plain(a: Any, b: Any, *, kind: type) -> Iterator[tuple[Keys, Any, Any]]:
    """The keys of each number, text, boolean and None in two nested values, and both of them; matched by order if the
    two share no key and have as many. ABSENT stands for a missing one whose partner is not None."""
    ones, others = (_plain_leaves(value, kind) for value in (a, b))
    ours, theirs = ([(keys, part) for keys, part in each.items() if part is not None] for each in (ones, others))
    if not ones.keys() & others.keys() and len(ours) == len(theirs):
        yield from ((keys, one, other) for (keys, one), (_, other) in zip(ours, theirs, strict=True))
        return
    yield from ((keys, one, others[keys]) for keys, one in ones.items() if keys in others)
    yield from ((keys, one, ABSENT) for keys, one in ours if keys not in others)
    yield from ((keys, ABSENT, other) for keys, other in theirs if keys not in ones)


def _plain_leaves(value: Any, kind: type) -> dict[Keys, Any]:
    return dict(leaves(mirror(value, lambda part: part, kind=kind), kind=SCALARS))  # type: ignore[arg-type]


def compare_plain(
    one: Any, other: Any, *, allowed: Tolerance | None = None, beside: Iterable[Tolerance] = ()
) -> Difference:
    """Compare two plain values. By default integers, texts and booleans are compared exactly, other numbers within the
    tolerance of float32, which they mostly come from, or of the tensors next to them.

    >>> str(compare_plain(3.0, 6.0)), compare_plain(3.0, 3.0000001).differs
    ('3.0 vs 6.0', False)
    """
    told: dict[str, Any] = {
        "shapes": ((), ()),
        "dtypes": (type(one).__name__, type(other).__name__),
        "text": f"{_short(one)} vs {_short(other)}",
    }
    if not (_is_number(one) and _is_number(other)):
        return Difference(**told, differs=True, identical=False)
    if allowed is None:
        whole = isinstance(one, int) and isinstance(other, int)
        known = [EXACT] if whole else [tolerance(torch.float32), *beside]
        allowed = max(relative for relative, _ in known), max(absolute for _, absolute in known)
    try:
        apart, size = float(abs(other - one)), float(abs(one))
    except OverflowError:
        apart, size = math.inf, math.inf
    far = not (math.isfinite(apart) and math.isfinite(size)) or apart > allowed[0] * size + allowed[1]
    differs = one != other and (far or (allowed == EXACT))
    figures: dict[str, Any] = {
        "absolute": apart,
        "relative": ratio(apart, size) if size else 0.0,
        "error": ratio(apart, size),
    }
    known_figures = figures if math.isfinite(apart) and math.isfinite(size) else {}
    return Difference(**told, **known_figures, differs=differs, identical=one == other, count=1, tolerance=allowed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _missing_plain(one: Any, other: Any) -> Difference:
    shapes, dtypes = zip(
        *((None, None) if part is ABSENT else ((), type(part).__name__) for part in (one, other)), strict=True
    )
    return Difference(shapes, dtypes, differs=True, identical=False, basis="shape")


def missing(one: Any, other: Any) -> Difference:
    """The difference between a tensor, or what is known of it, and a missing one."""
    shapes, dtypes = zip(
        *((None, None) if part is None else (tuple(part.shape), dtype_name(part.dtype)) for part in (one, other)),
        strict=True,
    )
    return Difference(shapes, dtypes, differs=True, identical=False, basis="shape")


def other_arguments(a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    """The numbers, texts and Nones under the same keys of two nested values that differ, as (key, first, second)."""
    ones, others = (dict(leaves(value, kind=SCALARS)) for value in (a, b))  # type: ignore[arg-type]
    return [
        (key_text(keys), one, others[keys])
        for keys, one in ones.items()
        if keys in others and repr(one) != repr(others[keys])
    ]


def key_text(keys: Keys) -> str:
    """Keys as they are shown: `logits`, `hidden_states.2`, "" for the tensor itself."""
    return ".".join(map(str, keys))


def known(differences: Differences) -> bool:
    """Whether more than the shape was compared, for each of these."""
    return all(found.basis != "shape" or found.differs for found in differences.values())


def largest(differences: Differences) -> float:
    """The largest error, as a share of the norm; NaN if none is known."""
    errors = [found.error for found in differences.values() if not math.isnan(found.error)]
    return max(errors, default=math.nan)


def _as_fingerprint(value: Any) -> Any:
    return fingerprint(value) if isinstance(value, Tensor) else value


def _of_stats(a: Stats, b: Stats, allowed: Tolerance) -> dict[str, Any]:
    """The figures of a Difference between statistics, which differ if no tensors within the tolerance can have them."""
    if a == b or (a.count == b.count and repr(a) == repr(b)):
        return {**(EQUAL if a.nan + a.inf == a.count else SAME), "count": a.count}
    relative, absolute = allowed
    nan = abs(a.nan - b.nan) + abs(a.inf - b.inf)
    bounds = {
        **dict.fromkeys(("min", "max", "mean"), absolute + relative * largest_finite(a.min, a.max)),
        "norm": math.sqrt(a.count) * absolute + relative * a.norm,
    }
    figures = {name: (getattr(a, name), getattr(b, name)) for name in bounds}
    differs = bool(nan) or any(apart(*figures[name], bound) for name, bound in bounds.items())
    errors = {name: abs(one - other) for name, (one, other) in figures.items()}
    return {
        **{"differs": differs, "identical": False, "nan": nan, "count": a.count},
        "absolute": max(errors["min"], errors["max"], errors["mean"]),
        "error": ratio(errors["norm"], a.norm),
    }
