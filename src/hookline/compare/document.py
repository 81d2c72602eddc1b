"""A Diff as a plain document, and back."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from hookline.compare.result import Cause, Diff, Pair, Unmatched, Weight
from hookline.compare.tensors import Difference

NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_document(diff: Diff) -> dict[str, Any]:
    """All of a diff for JSON, and what follows from it: whether it is none, a line, the first and the culprit."""
    first, culprit = diff.first, diff.culprit
    return {
        **{"same": diff.same, "summary": diff.summary},
        "first": None if first is None else first.number,
        "culprit": None if culprit is None else culprit.number,
        **{each.name: _plain(getattr(diff, each.name)) for each in dataclasses.fields(diff)},
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def from_document(document: Mapping[str, Any]) -> Diff:
    """The diff that a document describes; KeyError, TypeError, ValueError or AttributeError where it describes none."""
    return Diff(
        names=(document["names"][0], document["names"][1]),
        pairs=tuple(_pair(data) for data in document["pairs"]),
        weights=tuple(
            Weight(**{**data, "difference": _difference(data["difference"])}) for data in document["weights"]
        ),
        only_a=_unmatched(document["only_a"]),
        only_b=_unmatched(document["only_b"]),
        mapping=document["mapping"],
        proposed=document["proposed"],
        notes=tuple(document["notes"]),
        every_call=document.get("every_call", True),
    )


def _pair(data: Mapping[str, Any]) -> Pair:
    parts = ("inputs", "outputs", "buffers", "grads", "grad_inputs")
    differences = {name: {key: _difference(part) for key, part in data[name].items()} for name in parts}
    causes = tuple(Cause(**cause) for cause in data["causes"])
    return Pair(**{**data, **differences, "causes": causes})


def _difference(data: Mapping[str, Any]) -> Difference:
    figures: dict[str, Any] = {name: _number(figure) for name, figure in data.items()}
    shapes = tuple(None if shape is None else tuple(shape) for shape in data["shapes"])
    figures |= {"shapes": shapes, "dtypes": tuple(data["dtypes"]), "tolerance": tuple(data["tolerance"])}
    return Difference(**figures)


def _number(value: Any) -> Any:
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _unmatched(data: Iterable[Iterable[Any]]) -> Unmatched:
    return tuple((path, index, kind) for path, index, kind in data)
