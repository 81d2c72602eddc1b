"""A Diff as a plain document, and back."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, cast, get_args

from hookline.compare.difference import Cause, Diff, Pair, Weight
from hookline.matching.tensors import Basis, Difference
from hookline.store.members import (
    MemberError,
    count,
    damage_told,
    expect_object,
    expected,
    flag,
    listed,
    mapped,
    maybe,
    member,
    number,
    one_of,
    pair,
    parts,
    text,
    whole,
)

FIGURES = ("absolute", "relative", "error", "cosine", "snr", "ulps")
DIFFERENCES = ("inputs", "outputs", "buffers", "grads", "grad_inputs")


def _members(kind: Any, *more: str) -> frozenset[str]:
    return frozenset((*(each.name for each in dataclasses.fields(kind)), *more))


DIFF = _members(Diff, "format", "version", "same", "summary", "first", "culprit")
PAIR, CAUSE, WEIGHT, DIFFERENCE = map(_members, (Pair, Cause, Weight, Difference))


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


def from_document(document: Any, *, source: str = "the document of this diff") -> Diff:
    """The diff that a document describes; StoreError that names the first member that is not as it should be, and the
    `source` of the document."""
    with damage_told(source):
        expect_object(document, DIFF)
        found = Diff(
            names=member(document, "names", lambda value: pair(value, text)),
            pairs=member(document, "pairs", listed(_pair)),
            weights=member(document, "weights", listed(_weight)),
            only_a=member(document, "only_a", listed(_unmatched)),
            only_b=member(document, "only_b", listed(_unmatched)),
            mapping=member(document, "mapping", mapped(text)),
            proposed=member(document, "proposed", mapped(text)),
            notes=member(document, "notes", listed(text)),
            every_call=member(document, "every_call", flag),
        )
        for place, each in enumerate(found.pairs):
            try:
                _expect_place(each, place)
            except MemberError as wrong:
                raise wrong.within(place).within("pairs") from None
        return found


def _expect_place(found: Pair, place: int) -> None:
    if found.number != place:
        raise expected(f"{place}, the place of the pair", found.number).within("number")
    if found.parent is not None and found.parent >= place:
        raise MemberError(f"names pair {found.parent}, which does not come before it").within("parent")


def _pair(data: Any) -> Pair:
    expect_object(data, PAIR)
    figures: dict[str, Any] = {name: member(data, name, mapped(_difference)) for name in DIFFERENCES}
    figures |= {name: member(data, name, text) for name in ("path_a", "path_b", "type_a", "type_b")}
    figures |= {name: member(data, name, count) for name in ("index", "number", "ended")}
    return Pair(
        **figures,
        parent=member(data, "parent", maybe(count)),
        failed=member(data, "failed", flag),
        excused=member(data, "excused", one_of("", "shape", "rounding")),
        makes_it=member(data, "makes_it", maybe(flag)),
        causes=member(data, "causes", listed(_cause)),
    )


def _cause(data: Any) -> Cause:
    expect_object(data, CAUSE)
    return Cause(member(data, "kind", text), member(data, "message", text))


def _weight(data: Any) -> Weight:
    expect_object(data, WEIGHT)
    found = Weight(
        name_a=member(data, "name_a", maybe(text)),
        name_b=member(data, "name_b", maybe(text)),
        kind=member(data, "kind", one_of("parameter", "buffer")),
        difference=member(data, "difference", _difference),
        relation=member(data, "relation", text),
    )
    if found.name_a is None and found.name_b is None:
        raise MemberError("has neither name_a nor name_b")
    return found


def _difference(data: Any) -> Difference:
    expect_object(data, DIFFERENCE)
    figures: dict[str, Any] = {name: member(data, name, number) for name in FIGURES}
    figures |= {name: member(data, name, flag) for name in ("differs", "identical")}
    figures |= {name: member(data, name, count) for name in ("nan", "beyond", "count")}
    return Difference(
        **figures,
        shapes=member(data, "shapes", lambda value: pair(value, maybe(_shape))),
        dtypes=member(data, "dtypes", lambda value: pair(value, maybe(text))),
        basis=cast(Basis, member(data, "basis", one_of(*get_args(Basis)))),
        tolerance=member(data, "tolerance", lambda value: pair(value, number)),
        text=member(data, "text", text),
    )


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(parts(value, lambda size: whole(size, -1)))


def _unmatched(value: Any) -> tuple[str, int, str]:
    found = parts(value, lambda part: part)
    if len(found) != 3:
        raise expected("a list of path, index and class", value)
    return text(found[0]), count(found[1]), text(found[2])
