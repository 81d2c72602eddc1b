"""Compare two models: run both, pair their calls, compare these, find the culprits, and say why."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch.nn import Module

from hookline.compare.assemble import assembled
from hookline.compare.causes import model_name
from hookline.compare.culprits import judge_models
from hookline.compare.difference import Diff, Pair, Weight
from hookline.compare.explain import modules_differ, why_modules
from hookline.compare.inputs import fitted, missing_data_named
from hookline.compare.isolate import Suspect, Verdict, isolate
from hookline.compare.model_run import ComparedModel, Loss, compare_model_runs, run_model
from hookline.compare.noise import fold_noise
from hookline.compare.notes import notes_on_models
from hookline.compare.rounding import bounds, coarser_dtype
from hookline.compare.tolerances import Allowed, Tolerances, allowing, refuse_unmatched
from hookline.compare.weights import differing_weights, partner_modules
from hookline.engine.compiled import is_compile_wrapper
from hookline.errors import SelectionError
from hookline.matching.match import Matching, match
from hookline.model.copies import copied_arguments
from hookline.model.paths import walk
from hookline.model.select import Selection, Where, select
from hookline.record.keep import Keep


def diff_models(
    a: Module,
    b: Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    where: Where,
    mapping: Mapping[str, str] | None,
    tolerances: Tolerances,
    loss: Loss | None,
    keep: Keep,
) -> Diff:
    """Where the second of two models differs from the first, on the same inputs; with a loss in backward too."""
    allowed = allowing(tolerances)
    selections = _selections(a, b, where, mapping)
    inputs = [fitted((args, kwargs), model) for model in (a, b)]
    first, second = (
        ComparedModel(which, selection, *given, loss, keep)
        for which, selection, given in zip(("first", "second"), selections, inputs, strict=True)
    )

    with missing_data_named(a, b):
        ours, theirs = run_model(first), run_model(second)

        matching = match(ours.run, theirs.run, mapping=mapping, modules=(first.modules, second.modules))
        refuse_unmatched(matching, tolerances)
        partners = partner_modules(a, matching.paths)

        pairs = compare_model_runs(ours, theirs, matching, partners, keep, allowed)
        pairs = fold_noise(pairs, (first, second), (ours, theirs), allowed)
        weights = differing_weights(dict(walk(a)), dict(walk(b)), partners)

        limits = _limits_of_rounding(pairs, matching, selections, weights, allowed)
        verdicts = _run_alone(pairs, matching, first, second, limits, allowed)
        pairs = judge_models(pairs, {number: verdict.is_culprit for number, verdict in verdicts.items()}, limits)

        largest = max(limits.values(), default=0.0)
        pairs = [_explained(pair, matching, selections, weights, verdicts.get(pair.number), largest) for pair in pairs]
        notes = notes_on_models((first, second), (ours, theirs), pairs, partners, [*verdicts.values()])
        names = model_name(a), model_name(b)
        return assembled(names, pairs, matching, notes, weights, every_call=bool(tolerances))


def _selections(a: Module, b: Module, where: Where, mapping: Mapping[str, str] | None) -> tuple[Selection, Selection]:
    """The modules that are recorded of both models; all of the second if its paths may differ."""
    first = _with_wrappers(select(a, where))
    if where == "**" or mapping:
        return first, _with_wrappers(select(b))
    try:
        return first, _with_wrappers(select(b, where))
    except SelectionError:
        return first, _with_wrappers(select(b))


def _with_wrappers(selection: Selection) -> Selection:
    """The selection with what `torch.compile` returned instead of the modules that it wraps: it is what is called,
    and can be run alone."""
    wrappers = {path: module for path, module in walk(selection.model) if is_compile_wrapper(module)}
    modules = {path: wrappers.get(path, module) for path, module in selection}
    return Selection(selection.model, modules, selection.aliases)


def _limits_of_rounding(
    pairs: list[Pair],
    matching: Matching,
    selections: tuple[Selection, Selection],
    weights: list[Weight],
    allowed: Allowed,
) -> dict[int, float]:
    """The error that rounding explains in each pair, by number, if the models compute in other dtypes; none where a
    tolerance was given, or where something else that differs in the modules explains more."""
    dtype = coarser_dtype(pairs)
    limits = {} if dtype is None else bounds(pairs, dtype)
    return {
        pair.number: limits[pair.number]
        for pair in pairs
        if pair.number in limits
        and allowed(pair.path_a) is None
        and not modules_differ(pair, matching, selections, weights)
    }


def _run_alone(
    pairs: list[Pair],
    matching: Matching,
    first: ComparedModel,
    second: ComparedModel,
    limits: Mapping[int, float],
    allowed: Allowed,
) -> dict[int, Verdict]:
    """The verdict on each pair whose outputs differ, by number: the second's module is run alone on the inputs of the
    first's."""
    suspects = {
        (pair.path_a, pair.index): Suspect(
            second.modules[pair.path_b],
            matching.pairs[pair.number][1],
            allowed(pair.path_a),
            limits.get(pair.number, 0.0),
        )
        for pair in pairs
        if pair.output_differs and pair.path_b in second.modules
    }
    if not suspects:
        return {}
    args, kwargs = copied_arguments(first.inputs)
    found = isolate(first.selection, suspects, lambda: first.model(*args, **kwargs))
    return {pair.number: found[key] for pair in pairs if (key := (pair.path_a, pair.index)) in found}


def _explained(
    pair: Pair,
    matching: Matching,
    selections: tuple[Selection, Selection],
    weights: list[Weight],
    verdict: Verdict | None,
    rounding: float,
) -> Pair:
    """The pair with its causes, if it is a culprit."""
    if not pair.is_culprit:
        return pair
    return replace(pair, causes=why_modules(pair, matching, selections, weights, verdict, rounding=rounding))
