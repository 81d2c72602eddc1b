"""The page of a diff."""

from collections.abc import Iterator
from typing import Any

from hookline.compare.difference import Diff, Pair
from hookline.compare.recorded import Differences
from hookline.report.diff_table import footnotes, verdict
from hookline.report.page.build import Names, cut, document, mark, number

CALL = ("path", "index", "class", "parent", "path_b", "class_b", "ended", "state", "amplification", "why", "verdict")
PARTS = ("inputs", "outputs", "grads", "grad_inputs", "buffers")
FIGURES = ("basis", "text", "absolute", "relative", "error", "cosine", "snr", "ulps", "nan", "beyond", "count")
TENSOR = ("name", "kinds", "state", *FIGURES)
MOST_MARKS = 200


def diff_document(diff: Diff) -> dict[str, Any]:
    """The document of a diff's page: a call for each pair."""
    names, kinds = Names(), Names()
    calls = [[*_row(pair, names, kinds)] for pair in diff.pairs]
    one, other = diff.names
    return document(
        "diff",
        title=f"{one} and {other}",
        summary=diff.summary.removeprefix(f"{one} and {other}: "),
        notes=footnotes(diff),
        marks=[*_marks(diff)],
        aliases={},
        columns={"call": (*CALL, *PARTS), "tensor": TENSOR, "kind": ("shape", "dtype")},
        names=[*names],
        kinds=[*kinds],
        calls=calls,
    )


def _row(pair: Pair, names: Names, kinds: Names) -> Iterator[Any]:
    """The values of one pair for each of CALL and PARTS."""
    yield from (names(pair.path_a), pair.index, names(pair.type_a), pair.parent)
    yield from (names(pair.path_b), names(pair.type_b), pair.ended)
    yield "culprit" if pair.is_culprit else "differs" if pair.differs else pair.excused or "same"
    yield from (number(pair.amplification), pair.why, verdict(pair))
    yield from ([*_tensors(getattr(pair, part), kinds)] for part in PARTS)


def _tensors(found: Differences, kinds: Names) -> Iterator[list[Any]]:
    """The values of each difference for each of TENSOR, without unknown ones at the end."""
    for name, difference in found.items():
        pairs = zip(difference.shapes, difference.dtypes, strict=True)
        sides = [None if shape is None else kinds((shape, dtype)) for shape, dtype in pairs]
        agrees = "explained by rounding" if difference.folded else "within tolerance"
        state = "identical" if difference.identical else "differs" if difference.differs else agrees
        yield cut((name, sides, state, *(number(getattr(difference, key)) for key in FIGURES)))


def _marks(diff: Diff) -> Iterator[dict[str, Any]]:
    """Marks for the culprits, for the first call that differs if it is not a culprit, and for the weights."""
    first, culprits = diff.first, diff.culprits
    for pair in culprits[:MOST_MARKS]:
        yield mark("culprit", pair.number, pair.why or "differs by itself", path=pair.path_a)
    if first is not None and first not in culprits:
        yield mark("differs", first.number, f"the first call that differs: {first.worst}", path=first.path_a)
    calls = {pair.path_a: pair.number for pair in reversed(diff.pairs)}
    for weight in diff.weights[:MOST_MARKS]:
        name = weight.name_a or weight.name_b or ""
        text = f"{weight.kind} {str(weight).removeprefix(f'{name} ')}"
        yield mark("note", calls.get(name.rpartition(".")[0]), text, path=name)
