"""Notes on a comparison: what was not compared, what could not be run, what to know about the two models."""

from collections.abc import Iterable, Iterator, Mapping

from hookline.compare.causes import model_name
from hookline.compare.difference import Pair
from hookline.compare.inputs import partly_meta
from hookline.compare.isolate import Verdict
from hookline.compare.model_run import ComparedModel, ModelRun
from hookline.compare.randomness import random_notes
from hookline.compare.recorded import largest
from hookline.compare.rounding import FURTHER
from hookline.compare.weights import held_otherwise
from hookline.engine.compiled import is_compiled
from hookline.matching.match import Matching
from hookline.messages import counted, few
from hookline.model.offload import held_elsewhere, updates_lost
from hookline.model.paths import walk
from hookline.model.tensors import Opaque, leaves


def notes_on_models(
    sides: tuple[ComparedModel, ComparedModel],
    runs: tuple[ModelRun, ModelRun],
    pairs: list[Pair],
    partners: Mapping[str, str],
    verdicts: Iterable[Verdict],
) -> Iterator[str]:
    """What to know about a comparison of two models."""
    for side in sides:
        if side.fitting:
            yield f"the inputs were fitted to the {side.which}: {side.fitting}"
    for side in sides:
        yield from _on_compiled(side)
    for side in sides:
        yield from _on_missing_data(side)
    yield from _on_unfit(verdicts)
    if only_shapes(pairs):
        yield "only shapes were compared: the tensors hold no numbers, or keep= kept none of them"
    yield from _on_gradients(sides, pairs, partners)
    for side, run in zip(sides, runs, strict=True):
        yield from random_notes(run.draws, side.selection, side.which)


def _on_compiled(side: ComparedModel) -> Iterator[str]:
    for path, module in side.selection:
        if is_compiled(module):
            name = path or model_name(module)
            yield f"{name} is compiled: to find the culprit, its modules are run uncompiled"


def _on_missing_data(side: ComparedModel) -> Iterator[str]:
    told = partly_meta(side.model, side.which)
    if told:
        yield f"{told}; these are not compared"
    lost = updates_lost(side.model)
    if lost:
        yield f"not compared: buffers of the {side.which} that accelerate reads from disk for each call: {few(lost)}"


def _on_unfit(verdicts: Iterable[Verdict]) -> Iterator[str]:
    unfit = [verdict.reason for verdict in verdicts if verdict.reason]
    if unfit:
        told = f"{len(unfit)} calls could not be run on the reference's inputs, and are judged by what was recorded"
        yield f"{told}; the first: {unfit[0]}"


def _on_gradients(
    sides: tuple[ComparedModel, ComparedModel], pairs: list[Pair], partners: Mapping[str, str]
) -> Iterator[str]:
    """Which gradients were not compared, and why gradients differ where no call shows it."""
    if all(side.loss is None for side in sides):
        return
    for side in sides:
        brought = [name for name, each in side.model.named_parameters() if each.requires_grad and each.is_meta]
        if brought and held_elsewhere(side.model):
            yield f"not compared: gradients of parameters that accelerate offloads in the {side.which}: {few(brought)}"
    for place, side in enumerate(sides):
        found = (each for pair in pairs for part in (pair.grads, pair.grad_inputs) for each in part.values())
        if all(each.shapes[place] is None for each in found):
            yield f"no gradient was seen in the {side.which}, so there is none to compare"
    if any(pair.gradients_differ for pair in pairs):
        yield from held_otherwise(dict(walk(sides[0].model)), dict(walk(sides[1].model)), partners)


def notes_on_runs(pairs: list[Pair], matching: Matching) -> Iterator[str]:
    """What to know about a comparison of two recorded runs."""
    for pair in pairs:
        other = [key for key, found in pair.inputs.items() if found.differs]
        if matching.pairs[pair.number][0].parent is None and other:
            yield f"the inputs of {pair.path or 'the model'} differ: argument {', '.join(other)}"
    if only_shapes(pairs):
        yield "both runs kept only shapes: to compare values, watch with keep='stats', 'copy' or hookline.fingerprint"
    yield from _on_folded_gradients(pairs)
    given = [found for pair in pairs if pair.differs for found in pair.inputs.values()]
    if given and all(found.basis == "shape" for found in given):
        yield "inputs were not recorded, so the culprit is not known: watch(inputs=hookline.fingerprint)"


def _on_folded_gradients(pairs: list[Pair]) -> Iterator[str]:
    """Which gradients and buffers are further apart than rounding of the outputs suggests, although they do not count:
    how much rounding explains of them, only the models can show."""
    excused = [pair for pair in pairs if pair.excused == "rounding"]
    usual = max((largest(pair.outputs) for pair in excused), default=0.0)
    apart = {
        pair.path: error
        for pair in excused
        if (error := max(0.0, *map(largest, (pair.grads, pair.grad_inputs, pair.buffers)))) > FURTHER * usual
    }
    if apart:
        path = max(apart, key=lambda each: apart[each])
        yield (
            f"gradients or buffers of {counted(len(apart), 'module')} differ by more than the outputs, up to "
            f"{apart[path]:.2g} of the norm at {path or 'the model'}; two runs cannot show whether that is rounding: "
            "compare the models"
        )


def only_shapes(pairs: list[Pair]) -> bool:
    """Whether only the shapes of outputs that agree were compared."""
    compared = [found.basis for pair in pairs for found in pair.outputs.values() if not found.differs]
    return bool(compared) and all(basis == "shape" for basis in compared)


# On any two runs


def notes_on_outputs(pairs: list[Pair], matching: Matching) -> Iterator[str]:
    """Which outputs were not compared."""
    yield from _on_spare_outputs(pairs)
    yield from _on_unseen_outputs(pairs, matching)


def _on_spare_outputs(pairs: list[Pair]) -> Iterator[str]:
    """A note on outputs that only one of two modules has."""
    spare = {
        pair.path: key
        for pair in pairs
        for key, found in pair.outputs.items()
        if None in found.shapes and not found.differs
    }
    if spare:
        path, key = next(iter(spare.items()))
        more = f", and of {len(spare) - 1} more modules" if len(spare) > 1 else ""
        yield f"outputs that only one model returns are not compared: {key} of {path or 'the model'}{more}"


def _on_unseen_outputs(pairs: list[Pair], matching: Matching) -> Iterator[str]:
    """A note on modules whose outputs are objects that hookline does not look into."""
    unseen: dict[str, str] = {}
    for pair in pairs:
        inside = [kind for call in matching.pairs[pair.number] for _, kind in leaves(call.output, kind=Opaque)]
        if inside and not pair.outputs:
            unseen.setdefault(pair.path or "the model", inside[0].type)
    if unseen:
        path, kind = next(iter(unseen.items()))
        more = f", and the outputs of {len(unseen) - 1} more modules" if len(unseen) > 1 else ""
        yield f"hookline does not look inside, so these are not compared: the {kind} that {path} returns{more}"
