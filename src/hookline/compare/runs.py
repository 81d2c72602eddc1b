"""Compare two recorded runs: pair their calls, compare these, find the culprits, and say why."""

from collections.abc import Mapping
from dataclasses import replace

from hookline.compare.assemble import assembled
from hookline.compare.calls import compare_calls
from hookline.compare.culprits import judge_runs
from hookline.compare.difference import Diff, Pair
from hookline.compare.explain import why_records
from hookline.compare.notes import notes_on_runs
from hookline.compare.rounding import bounds, coarser_dtype
from hookline.compare.tolerances import Tolerances, allowing, refuse_unmatched
from hookline.errors import ArgumentTypeError, SelectionError
from hookline.matching.match import match
from hookline.model.select import Where, glob_to_regex
from hookline.record.record import Run


def diff_runs(a: Run, b: Run, *, where: Where, mapping: Mapping[str, str] | None, tolerances: Tolerances) -> Diff:
    """Where the second of two runs differs from the first, as far as both recorded."""
    names = a.model, b.model
    first = _narrowed(a, where)
    second = b if mapping or first is a else _narrowed(b, where)

    matching = match(first, second, mapping=mapping)
    refuse_unmatched(matching, tolerances)

    pairs = compare_calls(first, matching, allowing(tolerances))
    coarser = coarser_dtype(pairs) if tolerances is None else None
    pairs = judge_runs(pairs, coarser)

    largest = max(bounds(pairs, coarser).values(), default=0.0) if coarser is not None else 0.0
    explained = _to_explain(names, pairs)
    pairs = [
        replace(pair, causes=why_records(pair, matching, rounding=largest)) if pair.number in explained else pair
        for pair in pairs
    ]
    return assembled(names, pairs, matching, notes_on_runs(pairs, matching), every_call=bool(tolerances))


def _narrowed(run: Run, where: Where) -> Run:
    """The run with only the calls that globs pick."""
    globs = [where] if isinstance(where, str) else where
    if where == "**":
        return run
    if not isinstance(globs, list | tuple) or not all(isinstance(glob, str) for glob in globs):
        raise ArgumentTypeError(
            f"where must be a glob or a list of globs, such as 'encoder.**', to narrow runs, not {where!r}"
        )
    expressions = [glob_to_regex(glob) for glob in globs]
    narrow = Run(model=run.model, modules=run.modules, aliases=run.aliases, settings=run.settings)
    narrow.calls += [call for call in run.calls if any(each.fullmatch(call.path) for each in expressions)]
    if not narrow.calls:
        raise SelectionError(f"{' or '.join(map(repr, globs))} matches none of the calls of this run of {run.model}")
    return narrow


def _to_explain(names: tuple[str, str], pairs: list[Pair]) -> set[int]:
    """The numbers of the culprits; if none is known, that of the first pair that differs."""
    culprits = {pair.number for pair in pairs if pair.is_culprit}
    first = Diff(names, tuple(pairs)).first
    return culprits or ({first.number} if first is not None else set())
