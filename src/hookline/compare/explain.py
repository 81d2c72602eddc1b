"""Why a pair is a culprit: by its calls, its modules, and how the module ran alone; the likeliest cause first."""

from collections.abc import Iterator, Mapping

import torch
from torch.nn import Module

from hookline.compare.arguments import argument_names
from hookline.compare.callers import Inside, beyond, call_causes, names_inside, other_inputs
from hookline.compare.causes import modes_text, module_causes, weight_causes
from hookline.compare.difference import Cause, Pair, Weight
from hookline.compare.isolate import Verdict
from hookline.compare.recorded import compare_values
from hookline.matching.match import Matching
from hookline.model.select import Selection
from hookline.record.record import CallRecord

ORDER = ("error", "arguments", "mode", "weights", "buffers", "attribute", "order", "calls", "dtype", "class", "code")


def why_modules(
    pair: Pair,
    matching: Matching,
    modules: tuple[Selection, Selection],
    weights: list[Weight],
    verdict: Verdict | None,
    *,
    rounding: float = 0.0,
) -> tuple[Cause, ...]:
    """The causes of a culprit of two models. `verdict` is the result of running it alone, `rounding` the error of
    arguments that rounding explains."""
    called = [path for path in matching.paths if path != pair.path_a]
    below = [path.removeprefix(f"{pair.path_a}.") for path in called if _is_inside(path, pair.path_a)]
    one, other = modules[0].modules.get(pair.path_a), modules[1].modules.get(pair.path_b)
    alone = verdict is not None and not verdict.reason
    causes = _call_causes(pair, matching, alone=alone, modules=modules[0].modules, rounding=rounding)
    if one is not None and other is not None:
        causes += weight_causes(weights, pair.path_a, called=called)
        causes += module_causes(one, other, called=below)
    causes += _transposed(causes, verdict)
    return (*_in_order(causes), *_concluding(causes, verdict, _deed(pair)))


def modules_differ(pair: Pair, matching: Matching, modules: tuple[Selection, Selection], weights: list[Weight]) -> bool:
    """Whether weights, modes or attributes of two modules differ, which explains more than rounding does."""
    one, other = modules[0].modules.get(pair.path_a), modules[1].modules.get(pair.path_b)
    if one is None or other is None:
        return False
    called = [path for path in matching.paths if path != pair.path_a]
    below = [path.removeprefix(f"{pair.path_a}.") for path in called if _is_inside(path, pair.path_a)]
    causes = module_causes(one, other, called=below)
    found = any(cause.kind in ("mode", "attribute") and not _of_dtypes(cause) for cause in causes)
    own = [
        weight for weight in weights if weight.relation != "transposed"
    ]  # it may be used so: running the module shows it
    return found or bool(weight_causes(own, pair.path_a, called=called))


def _of_dtypes(cause: Cause) -> bool:
    """Whether a cause is about a dtype that a configuration holds."""
    words = [word.strip("'") for word in cause.message.partition(" ")[2].split(" vs ")]
    return all(isinstance(getattr(torch, word.removeprefix("torch."), None), torch.dtype) for word in words)


def why_records(pair: Pair, matching: Matching, *, rounding: float = 0.0) -> tuple[Cause, ...]:
    """The causes of a pair, as far as the records of two runs show them."""
    one, other = matching.pairs[pair.number]
    causes = _call_causes(pair, matching, rounding=rounding)
    if one.training != other.training:
        causes.append(Cause("mode", modes_text(one.training, other.training)))
    dtypes = [", ".join(dict.fromkeys(info.dtype_name for info in call.outputs)) for call in (one, other)]
    if all(dtypes) and dtypes[0] != dtypes[1]:
        causes.append(Cause("dtype", f"output dtype {dtypes[0]} vs {dtypes[1]}"))
    if one.type != other.type:
        causes.append(Cause("class", f"class {one.type} vs {other.type}"))
    if not causes and pair.is_culprit:
        causes.append(Cause("code", "its outputs differ on the same inputs: look at its weights and its code"))
    return tuple(_in_order(causes))


def _transposed(causes: list[Cause], verdict: Verdict | None) -> Iterator[Cause]:
    """A cause if the weights are equal and one model uses them transposed."""
    turned = () if verdict is None else verdict.transposed
    if turned and not any(cause.kind == "weights" and "transposed" in cause.message for cause in causes):
        yield Cause("weights", f"{', '.join(turned)} is used transposed: transposing it gives the same outputs")


def _call_causes(
    pair: Pair,
    matching: Matching,
    *,
    alone: bool = False,
    modules: Mapping[str, Module] | None = None,
    rounding: float = 0.0,
) -> list[Cause]:
    """The causes in the calls. The arguments of a module that was run alone do not count: it ran on the reference's."""
    one, other = matching.pairs[pair.number]
    given = [] if alone else [Cause("arguments", f"receives {text}") for text in other_inputs(one, other, rounding)]
    inside = _inside(one, matching, modules or {}, rounding)
    strays = [
        Cause("calls", f"calls {call.path.rpartition('.')[2] or call.type}, which has no partner")
        for calls, holder in ((matching.only_a, one), (matching.only_b, other))
        for call in calls
        if call.parent is holder
    ]
    return [*given, *call_causes(one, other, inside, rounding), *strays[:3]]


def _inside(holder: CallRecord, matching: Matching, modules: Mapping[str, Module], rounding: float) -> list[Inside]:
    """The pairs of calls that ran inside this one, with no other matched call between."""
    known = {id(one) for one, _ in matching.pairs}
    found = [(one, other) for one, other in matching.pairs if _nearest(one, known) is holder]
    names = names_inside([*dict.fromkeys(one.path for one, _ in found)], holder.path)
    return [
        Inside(
            one,
            other,
            _outputs_differ(one, other, rounding),
            names[one.path] or one.type,
            argument_names(modules.get(one.path)),
        )
        for one, other in found
    ]


def _nearest(call: CallRecord, known: set[int]) -> CallRecord | None:
    """The nearest call around this one that has a partner."""
    return next((above for above in call.around() if id(above) in known), None)


def _outputs_differ(one: CallRecord, other: CallRecord, rounding: float) -> bool:
    found = compare_values(one.output, other.output, strict=False, plain=True).values()
    return any(beyond(each, rounding) for each in found)


def _in_order(causes: list[Cause]) -> list[Cause]:
    return sorted(causes, key=lambda cause: ORDER.index(cause.kind))


def _deed(pair: Pair) -> str:
    if pair.output_differs:
        return "returns other outputs"
    return "updates its buffers differently" if pair.buffers_differ else "returns other gradients"


def _concluding(causes: list[Cause], verdict: Verdict | None, deed: str) -> Iterator[Cause]:
    """The causes that follow from running the module alone, with its own weights and with the reference's."""
    if all(cause.kind == "class" and _of_one_name(cause) for cause in causes):
        yield Cause("code", f"with the same inputs and the same weights, its code {deed}")
    elif verdict is not None and verdict.only_weights is False and any(cause.kind == "weights" for cause in causes):
        yield Cause("code", "and with the reference's weights its outputs differ too")


def _of_one_name(cause: Cause) -> bool:
    """Whether the two classes share a name, which says little about what they do."""
    names = {words.split()[-1].rpartition(".")[2] for words in cause.message.split(" vs ")}
    return len(names) == 1


def _is_inside(path: str, container: str) -> bool:
    return path.startswith(f"{container}.") if container else bool(path)
