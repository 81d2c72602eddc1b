"""Write a Diff as a plain document, and read it back."""

from typing import Any, get_args

from hookline.compare.difference import Cause, Diff, Pair, Weight
from hookline.matching.tensors import Basis, Difference
from hookline.store.codec import Schema
from hookline.store.members import (
    MemberError,
    Read,
    count,
    expected,
    flag,
    listed,
    mapped,
    maybe,
    number,
    one_of,
    pair,
    parts,
    shape,
    text,
)


def _both(read: Read[Any]) -> Read[tuple[Any, Any]]:
    """A reader of a pair: of the first model and of the second."""
    return lambda value: pair(value, read)


def _unmatched(value: Any) -> tuple[str, int, str]:
    found = parts(value, lambda part: part)
    if len(found) != 3:
        raise expected("a list of path, index and class", value)
    return text(found[0]), count(found[1]), text(found[2])


DIFFERENCE = Schema(
    Difference,
    {
        **dict.fromkeys(("absolute", "relative", "error", "cosine", "snr", "ulps"), number),
        **dict.fromkeys(("differs", "identical"), flag),
        **dict.fromkeys(("nan", "beyond", "count"), count),
        **{"shapes": _both(maybe(shape)), "dtypes": _both(maybe(text)), "tolerance": _both(number), "text": text},
        "basis": one_of(*get_args(Basis)),
    },
)
CAUSE = Schema(Cause, {"kind": text, "message": text})
WEIGHT = Schema(
    Weight,
    {
        **{"name_a": maybe(text), "name_b": maybe(text), "kind": one_of("parameter", "buffer")},
        **{"difference": DIFFERENCE.read, "relation": text},
    },
)
PAIR = Schema(
    Pair,
    {
        **dict.fromkeys(("path_a", "path_b", "type_a", "type_b"), text),
        **dict.fromkeys(("index", "number", "ended"), count),
        **dict.fromkeys(("inputs", "outputs", "buffers", "grads", "grad_inputs"), mapped(DIFFERENCE.read)),
        **{"parent": maybe(count), "failed": flag, "is_culprit": maybe(flag), "causes": listed(CAUSE.read)},
        "excused": one_of("", "shape", "rounding"),
    },
)


def _pair(data: Any) -> Pair:
    """A pair; version 1 has `makes_it` for `is_culprit`."""
    if isinstance(data, dict) and "makes_it" in data and "is_culprit" not in data:
        data = {"is_culprit" if name == "makes_it" else name: value for name, value in data.items()}
    return PAIR.read(data)


def _weight(data: Any) -> Weight:
    found = WEIGHT.read(data)
    if found.name_a is None and found.name_b is None:
        raise MemberError("has neither name_a nor name_b")
    return found


DIFF = Schema(
    Diff,
    {
        **{"names": _both(text), "pairs": listed(_pair), "weights": listed(_weight)},
        **{"only_a": listed(_unmatched), "only_b": listed(_unmatched), "mapping": mapped(text)},
        **{"proposed": mapped(text), "notes": listed(text), "every_call": flag},
    },
    beside=("same", "summary", "first", "culprit"),
)


def to_document(diff: Diff) -> dict[str, Any]:
    """A diff for JSON, with what follows from it: whether it is the same, its summary, the first and the culprit."""
    first, culprit = diff.first, diff.culprit
    return {
        **{"same": diff.same, "summary": diff.summary},
        "first": None if first is None else first.number,
        "culprit": None if culprit is None else culprit.number,
        **DIFF.write(diff),
    }


def decode(document: Any, _: object = None) -> Diff:
    """The diff in a document; raises MemberError if it holds none."""
    found = DIFF.read(document)
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
