"""A diff as a tree table: branches that differ are open, calls that agree are folded into a line."""

import math
from collections.abc import Iterator

from hookline.compare.difference import Diff, Pair, Weight
from hookline.messages import counted, few, figure
from hookline.model.console import Group, Text
from hookline.report.fit import Fitted
from hookline.report.html import table_html

MOST_ROWS = 400
HEAD = ("call", "class", "max abs", "max rel", "error", "snr dB", "ulps", "out/in", "why")
NUMBERS = HEAD[2:-1]
SPARE = ("snr dB", "ulps", "out/in", "max rel", "max abs", "class", "error")  # the least useful first


def diff_table(diff: Diff, *, most: int = MOST_ROWS) -> Group:
    """The diff as a rich table: a row for each call that differs, indented by its depth, and one for each run of calls
    that agree; at most `most` rows."""
    rows = [*_rows(diff)] if _any_differs(diff) else []
    last = len(HEAD) - 1
    table = Fitted(HEAD, [HEAD.index(name) for name in SPARE], left=(0, 1, last), wrapped=(1, last))
    for cells, style in rows[:most]:
        table.add_row(*cells, style=style)
    more = [f"... and {len(rows) - most:,} more rows; diff.pairs holds all"] if len(rows) > most else []
    notes = [Text(note, style="dim") for note in (*more, *footnotes(diff))]
    return Group(Text(diff.summary, style="bold"), *([table] if rows else []), *notes)


def diff_html(diff: Diff) -> str:
    """The diff as an HTML table with the same rows."""
    rows = (
        (_depth(cells[0]), (cells[0].lstrip(), *cells[1:])) for cells, _ in (_rows(diff) if _any_differs(diff) else ())
    )
    return table_html(diff.summary, HEAD, rows, footnotes(diff))


def footnotes(diff: Diff) -> list[str]:
    """The lines below the tree: notes, proposed partners, calls without a partner, weights."""
    found = [*diff.notes]
    if diff.proposed:
        shown = [f"{path or '(the model)'} → {to or '(the model)'}" for path, to in diff.proposed.items()]
        found.append(f"matched by weights, values, class, shape and order: {few(shown)}")
    if diff.apart:
        shown = [f"{pair.path or '(the model)'} ({pair.worst})" for pair in {p.path: p for p in diff.apart}.values()]
        found.append(f"called with other shapes, not compared: {few(shown)}")
    rounded = [pair for pair in diff.rounded if pair.excused]
    if rounded:
        most = max((pair.error for pair in rounded if not math.isnan(pair.error)), default=math.nan)
        dtypes = next((worst.dtypes for pair in rounded if (worst := pair.worst) is not None), ("", ""))
        number = len(rounded)
        text = f"rounding explains the differences of {counted(number, 'call')}"
        found.append(f"{text}: up to {most:.2g} of the norm ({dtypes[0]} vs {dtypes[1]})")
    folded = [each for pair in diff for each in pair.folded.values()]
    if folded:
        which = "1 gradient or buffer" if len(folded) == 1 else f"{len(folded):,} gradients and buffers"
        found.append(f"rounding explains the differences of {which}: rounding one model changes them as much")
    found += _unmatched(diff)
    if diff.weights:
        names = dict.fromkeys(_weight(weight) for weight in diff.weights)
        found.append(f"weights that differ: {few([*names])}")
    return found


def _unmatched(diff: Diff) -> Iterator[str]:
    """The modules that only one model calls, and those that one model calls more often."""
    both = {pair.path_a for pair in diff}, {pair.path_b for pair in diff}
    for whose, calls, shared in zip(("first", "second"), (diff.only_a, diff.only_b), both, strict=True):
        names = dict.fromkeys(path or "(the model)" for path, _, _ in calls if path not in shared)
        more = dict.fromkeys(path or "(the model)" for path, _, _ in calls if path in shared)
        if names:
            yield f"only the {whose} calls: {few([*names])}"
        if more:
            yield f"the {whose} calls more often: {few([*more])}"


def _weight(weight: Weight) -> str:
    name = weight.name_a or weight.name_b or ""
    return f"{name} ({weight.relation})" if weight.relation == "transposed" else name


def _any_differs(diff: Diff) -> bool:
    return any(pair.differs for pair in diff)


def _rows(diff: Diff, parent: int | None = None, depth: int = 0) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """The rows below one call, each with its cells and its style."""
    agreeing = 0
    inside = _inside(diff)
    for pair in inside.get(parent, ()):
        if not pair.differs and not _holds_one(pair, inside):
            agreeing += _agreeing(pair) + _count(pair, inside)
            continue
        if agreeing:
            yield _folded(agreeing, depth)
            agreeing = 0
        yield _cells(pair, depth, parent, diff), "red" if pair.is_culprit else None if pair.differs else "dim"
        yield from _rows(diff, pair.number, depth + 1)
    if agreeing:
        yield _folded(agreeing, depth)


def _inside(diff: Diff) -> dict[int | None, list[Pair]]:
    found: dict[int | None, list[Pair]] = {}
    for pair in diff.pairs:
        found.setdefault(pair.parent, []).append(pair)
    return found


def _holds_one(pair: Pair, inside: dict[int | None, list[Pair]]) -> bool:
    return any(each.differs or _holds_one(each, inside) for each in inside.get(pair.number, ()))


def _count(pair: Pair, inside: dict[int | None, list[Pair]]) -> int:
    return sum(_agreeing(each) + _count(each, inside) for each in inside.get(pair.number, ()))


def _agreeing(pair: Pair) -> int:
    """1, or 0 for an excused pair, which a footnote lists."""
    return 0 if pair.excused else 1


def _folded(count: int, depth: int) -> tuple[tuple[str, ...], str]:
    words = f"{'  ' * depth}... {count:,} call{'s agree' if count > 1 else ' agrees'}"
    return (words, *[""] * (len(HEAD) - 1)), "dim"


def _cells(pair: Pair, depth: int, parent: int | None, diff: Diff) -> tuple[str, ...]:
    above = diff.pairs[parent].path_a if parent is not None else ""
    path = pair.path_a or pair.type_a
    name = path.removeprefix(f"{above}.") if above else path
    shown = "  " * depth + name + (f" #{pair.index}" if pair.index else "")
    kind = pair.type_a if pair.type_a == pair.type_b else f"{pair.type_a} | {pair.type_b}"
    return shown, kind, *_figures(pair), verdict(pair)


def _figures(pair: Pair) -> tuple[str, ...]:
    worst = pair.worst
    if worst is None or worst.other_shape or None in worst.shapes or worst.basis == "shape":
        return ("",) * len(NUMBERS)
    known = (worst.absolute, worst.relative, worst.error, worst.snr, worst.ulps, pair.amplification)
    return tuple("" if math.isnan(value) else figure(value) for value in known)


def verdict(pair: Pair) -> str:
    """The last cell of a row."""
    if not pair.differs:
        return ""
    worst = pair.worst
    words = f"CULPRIT: {pair.why}" if pair.is_culprit else pair.why
    compared = worst is None or not (worst.other_shape or None in worst.shapes or worst.nan or worst.text)
    if worst is None or compared:
        return words if pair.output_differs or words else "buffer" if pair.buffers_differ else "gradient"
    return f"{words}; {worst}" if words else str(worst)


def _depth(name: str) -> int:
    return (len(name) - len(name.lstrip())) // 2
