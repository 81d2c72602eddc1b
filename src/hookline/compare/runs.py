"""Two runs that were made already: where they part."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from hookline.compare.apart import with_apart
from hookline.compare.assemble import assembled, only_shapes
from hookline.compare.culprits import Tolerances, allowing, compare_calls, judge, refuse_idle
from hookline.compare.difference import Diff, Pair
from hookline.compare.explain import why_records
from hookline.compare.noise import fold_excused
from hookline.compare.rounding import bounds, coarser_dtype, with_rounding, words_of_runs
from hookline.errors import ArgumentTypeError, SelectionError
from hookline.matching.match import Matching, match
from hookline.model.select import Where, glob_to_regex
from hookline.record.record import Run


def diff_of_runs(a: Run, b: Run, where: Where, mapping: Mapping[str, str] | None, tolerances: Tolerances) -> Diff:
    """Where the second parts from the first, as far as both recorded."""
    first = _narrowed(a, where)
    matching = match(first, b if mapping or first is a else _narrowed(b, where), mapping=mapping)
    pairs = with_apart(compare_calls(first, matching, allowing(tolerances)))
    refuse_idle(tolerances, pairs)
    dtype = coarser_dtype(pairs) if tolerances is None else None
    words = words_of_runs(pairs, dtype) if dtype is not None else {}
    cleared = {number for number, word in words.items() if not word}
    pairs = fold_excused(with_rounding(judge(pairs, dict(words)), cleared))
    told = {pair.number for pair in pairs if pair.makes_it}
    unjudged = Diff((a.model, b.model), tuple(pairs)).first
    told |= {unjudged.number} if not told and unjudged is not None else set()
    small = max(bounds(pairs, dtype).values(), default=0.0) if dtype is not None else 0.0
    causes = {number: why_records(pairs[number], matching, rounding=small) for number in told}
    pairs = [replace(pair, causes=causes.get(pair.number, ())) for pair in pairs]
    notes = _notes_on_runs(pairs, matching)
    return assembled((a.model, b.model), pairs, matching, notes, every_call=bool(tolerances))


def _narrowed(run: Run, where: Where) -> Run:
    """A run of the calls that globs pick."""
    globs = [where] if isinstance(where, str) else where
    if where == "**":
        return run
    if not isinstance(globs, list | tuple) or not all(isinstance(glob, str) for glob in globs):
        raise ArgumentTypeError("where= picks calls of runs by globs, such as 'encoder.**'")
    expressions = [glob_to_regex(glob) for glob in globs]
    narrow = Run(model=run.model, modules=run.modules, aliases=run.aliases, settings=run.settings)
    narrow.calls += [call for call in run.calls if any(each.fullmatch(call.path) for each in expressions)]
    if not narrow.calls:
        raise SelectionError(f"{' or '.join(map(repr, globs))} matches none of the calls of this run of {run.model}")
    return narrow


def _notes_on_runs(pairs: list[Pair], matching: Matching) -> Iterator[str]:
    for pair in pairs:
        other = [key for key, found in pair.inputs.items() if found.differs]
        if matching.pairs[pair.number][0].parent is None and other:
            yield f"{pair.path or 'the model'} was given something else: argument {', '.join(other)}"
    if only_shapes(pairs):
        yield "only shapes were kept by both: watch(keep='stats'), hookline.fingerprint or 'copy' tell more"
    given = [found for pair in pairs if pair.differs for found in pair.inputs.values()]
    if given and all(found.basis == "shape" for found in given):
        yield "inputs were not recorded, so the culprit is not known: watch(inputs=hookline.fingerprint)"
