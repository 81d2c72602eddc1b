"""Turn Totals into a plain document and named tensors, and back. docs/format.md shows the document."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hookline.capturing.cover import Cover
from hookline.capturing.exact import TERMS, Exact
from hookline.capturing.largest import NOWHERE, Largest
from hookline.capturing.sketch import KEYS, dense, sparse
from hookline.capturing.total import MOST, Measures, Total
from hookline.capturing.totals import Totals
from hookline.store.codec import Schema, plain
from hookline.store.members import (
    LARGEST,
    MemberError,
    count,
    dtype,
    expect_object,
    expected,
    flag,
    listed,
    mapped,
    maybe,
    member,
    number,
    pair,
    parts,
    shape,
    text,
    whole,
)

FIGURES = ("mean", "std", "min", "max", "zeros")
MEMBERS = frozenset(("model", "signature", "measures", "covers", "ids", "points"))
MEASURES = Schema(Measures, {"covariance": flag, "quantiles": flag, "top": count, "positions": flag})


def to_document(totals: Totals) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document of totals, and the tensors of their points, named after the number of the point."""
    tensors: dict[str, Tensor] = {}
    points = []
    for place, point in enumerate(totals):
        tensors |= {f"{place}.{name}": tensor for name, tensor in tensors_of(point).items()}
        points.append(
            {
                **{"path": point.path, "type": point.type, "shape": [*point.shape], "dtype": point.dtype},
                **{"rows": point.rows, "examples": point.examples},
                "exact": [point.sums.exact, point.squares.exact],
                **plain(point.figures()),
            }
        )
    document = {
        "model": totals.model,
        "signature": totals.signature,
        "measures": MEASURES.write(totals.measures),
        "covers": [
            {
                **{"data": dict(cover.data), "inputs": cover.inputs, "examples": cover.examples, "batch": cover.batch},
                "parts": [[*part] for part in cover.parts],
                "skipped": [[number, why] for number, why in sorted(cover.skipped.items())],
            }
            for cover in totals.covers
        ],
        "ids": [[number, id] for number, id in totals.ids.items()],
        "points": points,
    }
    return document, tensors


def tensors_of(point: Total) -> dict[str, Tensor]:
    """The tensors of a point."""
    found = {
        "sums": torch.stack(point.sums.terms),
        "squares": torch.stack(point.squares.terms),
        "min": point.low,
        "max": point.high,
        "zeros": point.zero_counts,
    }
    if point.sketch is not None:
        found |= sparse(point.sketch)
    if point.largest is not None:
        found |= {"top_values": point.largest.values, "top_places": point.largest.places}
    return found


def decode(document: Any, tensors: Mapping[str, Tensor]) -> Totals:
    """The totals in a document and its tensors; MemberError where it holds none."""
    expect_object(document, MEMBERS)
    measures = member(document, "measures", MEASURES.read)
    points = parts_with_places(document, "points", lambda place, data: _point(place, data, measures, tensors))
    return Totals(
        member(document, "model", text),
        member(document, "signature", _signature),
        measures,
        member(document, "covers", listed(_cover)),
        points,
        dict(member(document, "ids", listed(_numbered))),
    )


def parts_with_places(document: Mapping[str, Any], name: str, read: Any) -> list[Any]:
    """The parts of a list, each read with its place."""
    places = iter(range(LARGEST))
    return member(document, name, lambda value: parts(value, lambda data: read(next(places), data)))


def _signature(value: Any) -> dict[str, Any]:
    found = expect_object(value)
    member(found, "rows", maybe(text))
    return found


def _numbered(value: Any) -> tuple[int, Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise expected("a list of 2", value)
    if type(value[1]) not in (int, str):
        raise expected("text or a whole number", value[1]).within(1)
    return count(value[0]), value[1]


def _reason(value: Any) -> tuple[int, str]:
    number, why = _numbered(value)
    return number, text(why)


def _part(value: Any) -> tuple[int, int]:
    first, step = pair(value, count)
    if first >= step:
        raise expected("a first batch below the step", value)
    return first, step


def _cover(data: Any) -> Cover:
    expect_object(data, frozenset(("data", "inputs", "examples", "batch", "parts", "skipped")))
    return Cover(
        member(data, "data", mapped(maybe(text))),
        member(data, "inputs", maybe(text)),
        member(data, "examples", count),
        member(data, "batch", lambda value: whole(value, 1)),
        member(data, "parts", listed(_part)),
        dict(member(data, "skipped", listed(_reason))),
    )


def _point(place: int, data: Any, measures: Measures, tensors: Mapping[str, Tensor]) -> Total:
    expect_object(data, frozenset(("path", "type", "shape", "dtype", "rows", "examples", "exact", *FIGURES)))
    for name in FIGURES:
        member(data, name, number)  # which the tensors below give again
    own = member(data, "shape", shape)
    if any(size < 1 for size in own) or (measures.covariance and math.prod(own) > MOST):
        raise MemberError("is not the shape of a row").within("shape")
    member(data, "dtype", dtype)
    kind = own, member(data, "dtype", text)
    point = Total(member(data, "path", text), member(data, "type", text), kind, measures)
    point.rows, point.examples = member(data, "rows", count), member(data, "examples", count)
    exact = member(data, "exact", lambda value: pair(value, flag))
    features = point.features

    def tensor(name: str, dtype: torch.dtype, size: Sequence[int | None]) -> Tensor:
        found = tensors.get(f"{place}.{name}")
        if found is None:
            raise MemberError(f"has no tensor {place}.{name} in tensors.safetensors")
        fits = len(size) == found.dim() and all(a in (None, b) for a, b in zip(size, found.shape, strict=True))
        if not fits or found.dtype != dtype:
            raise MemberError(
                f"has a tensor {place}.{name} of shape {[*found.shape]}, {found.dtype}, that does not fit"
            )
        return found

    point.sums = Exact(tensor("sums", torch.float64, (TERMS, features)).unbind(), exact[0])
    squares = len(point.squares.terms[0])
    point.squares = Exact(tensor("squares", torch.float64, (TERMS, squares)).unbind(), exact[1])
    point.low, point.high = (tensor(name, torch.float64, (features,)) for name in ("min", "max"))
    point.zero_counts = tensor("zeros", torch.int64, (features,))
    if measures.quantiles:
        buckets = tensor("buckets", torch.int32, (None,))
        counts = tensor("counts", torch.int64, (len(buckets),))
        if bool(((buckets < 0) | (buckets >= KEYS)).any()) or int(counts.sum()) != point.rows * features:
            raise MemberError(f"has counts {place}.counts that are not those of its values")
        point.sketch = dense({"buckets": buckets, "counts": counts})
    if measures.top:
        size = (measures.top, features)
        places = tensor("top_places", torch.int64, size)
        if int((places != NOWHERE).sum()) != min(measures.top, point.rows) * features or bool((places < 0).any()):
            raise MemberError(f"has places {place}.top_places that are not those of its rows")
        point.largest = Largest(tensor("top_values", torch.float64, size), places)
    return point
