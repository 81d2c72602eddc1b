"""diff: where two models, or two runs, differ; which module is the culprit, and why."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module

from hookline.compare.apart import with_apart
from hookline.compare.assemble import assembled, only_shapes
from hookline.compare.buffers import Buffers, buffers_of, with_buffers
from hookline.compare.culprits import (
    Allowed,
    Tolerances,
    allowing,
    compare_calls,
    judge,
    refuse_idle,
    with_weight_gradients,
)
from hookline.compare.difference import Diff, Pair, Weight
from hookline.compare.explain import told_by_modules, why_modules
from hookline.compare.inputs import Inputs, fitted, refuse_partly_meta, told_partly_meta
from hookline.compare.isolate import Suspect, Verdict, isolate
from hookline.compare.keep import Once
from hookline.compare.noise import SCALES, Rounding, fold, rounded_parameters, rounding_outputs
from hookline.compare.randomness import drawing, random_notes
from hookline.compare.rounding import bounds, coarser_dtype, is_small, with_rounding
from hookline.compare.runs import diff_of_runs
from hookline.compare.visible import with_wrappers
from hookline.compare.weights import differing_weights, held_otherwise
from hookline.engine.compiled import is_compiled
from hookline.errors import ArgumentError, ArgumentTypeError, CompareError, SelectionError
from hookline.matching.match import Matching, match
from hookline.matching.tensors import EXACT, Difference
from hookline.messages import few
from hookline.model.copies import copied_arguments
from hookline.model.loss import default_loss
from hookline.model.offload import held_elsewhere, updates_lost
from hookline.model.paths import walk
from hookline.model.restored import restored
from hookline.model.select import Selection, Where, refuse_path_as_input, select
from hookline.model.tensors import tensors
from hookline.record.draws import Draws
from hookline.record.keep import Keep, keeper
from hookline.record.record import Run, TensorInfo
from hookline.record.recorder import recording
from hookline.record.statistics import Pending


def diff(
    a: Module | Run,
    b: Module | Run,
    *args: Any,
    where: Where = "**",
    mapping: Mapping[str, str] | None = None,
    tolerances: Tolerances = None,
    loss: Callable[[Any], Tensor] | None = None,
    grads: bool = False,
    keep: Keep = "copy",
    **kwargs: Any,
) -> Diff:
    """Where `b` parts from the reference `a`: a `Diff`, true where a call of the one differs from that of the other;
    its `first`, the `culprit`, and why.

    - `diff(model_a, model_b, *args, **kwargs)` runs both on copies of the same inputs, from the same random state, in
      the modes they are in. Then each module that gave something else is run alone on what the reference's was given,
      innermost first: one whose output differs there is the culprit, the others pass a difference on. What the
      forward made of buffers is compared too. Afterwards gradients, buffers and random state are what they were.
    - `diff(run_a, run_b)` compares two runs, saved or not. A culprit is told where inputs were recorded too: best of
      `watch(model, keep=hookline.fingerprint, inputs=hookline.fingerprint)`, which is small.

    Calls are matched by path and index. `mapping` says which paths of `b` stand for which of `a`, with stars and all
    that lies below: `{"bert.encoder.layer.*": "layers.*"}`; for what is left on both sides, and for what
    has moved in a list of modules, partners are proposed by weights, values, class, shape and order.

    - `where` (see `select`; for runs globs): which calls of `a` are compared.
    - `tolerances`: (relative, absolute), or these by glob over the paths of `a`. By default those of `torch.testing`
      for the lower of the two dtypes: an element differs where |b - a| > absolute + relative * |a|.
    - `grads=True` runs backward too, from `loss` of the output (by default its `.loss`, else its mean square).
    - `keep`: what is kept of each tensor meanwhile: "copy", or less for large models: `hookline.fingerprint`, "stats".

    What a forward does to a model beyond its buffers it does here too, several times. An argument of the models' own
    with one of these names is given by a module around them. Compiled models are compared inside; who makes a
    difference is found by running their modules uncompiled.

    Raises ArgumentError for a model and a run, for a mapping that leads nowhere, for tolerances that fit no path, and
    for a path given as the only input, which is `where=`; CompareError where no call of the one belongs to a call of
    the other; SelectionError where `where` picks nothing; what a model raises goes on.

    >>> import copy, torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU(), torch.nn.LayerNorm(4))
    >>> port = copy.deepcopy(model)
    >>> port[1].approximate = "tanh"
    >>> found = hookline.diff(model, port, torch.randn(8, 4))
    >>> found.culprit.path, found.culprit.why
    ('1', "approximate is 'none' against 'tanh'")
    """
    allowing(tolerances)  # refuses what is none
    if mapping is not None and not isinstance(mapping, Mapping):
        raise ArgumentTypeError(f"mapping= takes paths of the first by paths of the second, as a dict, not {mapping!r}")
    if isinstance(a, Run) and isinstance(b, Run):
        if args or kwargs or loss is not None or grads:
            raise ArgumentError("runs have been made already: diff(run_a, run_b) takes no inputs, loss= or grads=")
        return diff_of_runs(a, b, where, mapping, tolerances)
    if not (isinstance(a, Module) and isinstance(b, Module)):
        kinds = " and ".join(type(each).__name__ for each in (a, b))
        raise ArgumentTypeError(f"diff takes two models, or two runs, not {kinds}; watch the model to get a run of it")
    first, second = _selections(a, b, where, mapping)
    refuse_path_as_input("diff", a, args, kwargs)
    gradient = (loss or default_loss) if grads else None
    inputs = fitted((args, kwargs), a), fitted((args, kwargs), b)
    try:
        return Models(first, second, inputs, gradient, keep, allowing(tolerances)).diff(mapping, tolerances)
    except CompareError:
        raise
    except Exception as error:
        for model, which in ((a, "first"), (b, "second")):  # only now: hooks may load them when a module is called
            refuse_partly_meta(model, which, error)
        raise


# Two models

Made: TypeAlias = tuple[Run, dict[str, TensorInfo | None], Buffers]  # its gradients of parameters by name


def _selections(a: Module, b: Module, where: Where, mapping: Mapping[str, str] | None) -> tuple[Selection, Selection]:
    """What is recorded of both: of the second all, where its paths may be others."""
    first = with_wrappers(select(a, where))
    if where == "**" or mapping:
        return first, with_wrappers(select(b))
    try:
        return first, with_wrappers(select(b, where))
    except SelectionError:
        return first, with_wrappers(select(b))


@dataclass(frozen=True, slots=True)
class Models:
    """Two models at hand, what each is called with and what was done to that, and how they are compared."""

    a: Selection
    b: Selection
    inputs: tuple[tuple[Inputs, str], tuple[Inputs, str]]
    loss: Callable[[Any], Tensor | None] | None
    keep: Keep
    allowed: Allowed

    def diff(self, mapping: Mapping[str, str] | None, tolerances: Tolerances) -> Diff:
        """Both run, matched, compared and judged."""
        run_a, grads_a, buffers_a, draws_a = self.recorded(self.a, self.inputs[0][0])
        run_b, grads_b, buffers_b, draws_b = self.recorded(self.b, self.inputs[1][0])
        modules = self.a.modules, self.b.modules
        matching = match(run_a, run_b, mapping=mapping, modules=modules)
        pairs = with_apart(compare_calls(run_a, matching, self.allowed))
        refuse_idle(tolerances, pairs)
        pairs = with_weight_gradients(pairs, grads_a, grads_b, self.allowed)
        partners = _partners(self, matching)
        pairs = with_buffers(pairs, buffers_a, buffers_b, partners, keeper(self.kept, Pending()), self.allowed)

        pairs = self.folded(pairs, (run_a, grads_a, buffers_a), (run_b, grads_b, buffers_b))
        weights = differing_weights(dict(walk(self.a.model)), dict(walk(self.b.model)), partners)
        explained = self.rounding(pairs, matching, weights)
        verdicts = self.verdicts(pairs, matching, explained)
        words = {number: verdict.makes_it for number, verdict in verdicts.items()}
        words |= {n: False for n, word in words.items() if word is None and is_small(pairs[n], explained.get(n, 0.0))}
        pairs = judge(pairs, words)
        pairs = with_rounding(pairs, {n for n in explained if words.get(n) is False})
        pairs = judge(pairs, {n: word for n, word in words.items() if pairs[n].gives_other})  # of the rest the backward
        small = max(explained.values(), default=0.0)
        pairs = [self.explained(pair, matching, weights, verdicts.get(pair.number), small) for pair in pairs]
        drawn = random_notes(draws_a, self.a, "first"), random_notes(draws_b, self.b, "second")
        notes = *self.notes(verdicts), *self.notes_on(pairs, partners), *drawn[0], *drawn[1]
        names = _name(self.a.model), _name(self.b.model)
        return assembled(names, pairs, matching, notes, weights, every_call=bool(tolerances))

    @property
    def kept(self) -> Keep:
        """What is kept of tensors that are put back to what they were."""
        return "copy" if self.keep == "tensor" else self.keep

    def folded(self, pairs: list[Pair], ours: Made, theirs: Made) -> list[Pair]:
        """The pairs after folding the gradients and buffers that differ by rounding alone, where the models compute in
        other dtypes and no tolerance was given: the model of the finer dtype is run once more, rounded."""
        dtype = coarser_dtype(pairs)
        if dtype is None or not any(each.differs for pair in pairs for each in _behind(pair)):
            return pairs
        own = Counter(found.dtypes for pair in pairs for found in pair.outputs.values() if None not in found.dtypes)
        finer = int(own.most_common(1)[0][0][0] == str(dtype).removeprefix("torch."))
        selection, made = ((self.a, ours), (self.b, theirs))[finer]
        noise: dict[tuple[str, int], list[Pair]] = {}
        with suppress(Exception):  # a model may not run so; then a few units in the last place are folded
            for scale in SCALES:
                for pair in self.rounded_pairs(selection, made, self.inputs[finer][0], Rounding(dtype, scale)):
                    noise.setdefault((pair.path_a, pair.index), []).append(pair)
        known = {
            pair.number: noise[key]
            for pair in pairs
            if (key := ((pair.path_a, pair.path_b)[finer], pair.index)) in noise
        }
        judged = [pair.number for pair in pairs if self.allowed(pair.path_a) is None]
        done = fold(pairs, known, dtype)
        return [done[pair.number] if pair.number in judged else pair for pair in pairs]

    def rounded_pairs(self, selection: Selection, made: Made, inputs: Inputs, rounding: Rounding) -> list[Pair]:
        """The pairs of the calls that a model made, and of those that it makes rounded."""
        run, grads, buffers, _ = self.recorded(selection, inputs, rounding=rounding)
        matching = match(made[0], run, modules=(selection.modules, selection.modules))
        found = compare_calls(made[0], matching, lambda _: EXACT)
        found = with_weight_gradients(found, made[1], grads, lambda _: EXACT)
        same = {path: path for path in matching.paths}
        return with_buffers(found, made[2], buffers, same, keeper(self.kept, Pending()), lambda _: EXACT)

    def recorded(
        self, selection: Selection, inputs: Inputs, *, rounding: Rounding | None = None
    ) -> tuple[Run, dict[str, TensorInfo | None], Buffers, Draws]:
        """A run of one of the models, its parameters' gradients by name, the buffers that it updated, and the calls
        that drew random numbers in evaluation; with `rounding` of the model with weights, outputs and gradients
        rounded."""
        model, keep = selection.model, Once(self.keep) if callable(self.keep) or self.keep == "copy" else self.keep
        grads: bool | Any = "input" if self.loss else False
        with torch.inference_mode(False), torch.set_grad_enabled(bool(grads)), ExitStack() as stack:
            args, kwargs = copied_arguments(inputs)  # inside, since autograd takes no copy that inference mode makes
            held = stack.enter_context(restored(model, (args, kwargs)))
            with drawing(selection) as draws, recording(selection, keep=keep, inputs=keep, grads=grads) as run:
                parameters = {} if rounding is None else rounded_parameters(model, rounding)
                if rounding is None:
                    output = model(*args, **kwargs)
                else:
                    stack.enter_context(rounding_outputs(selection, rounding))
                    output = functional_call(model, parameters, args, kwargs)
                buffers = buffers_of(held, keeper(self.kept, Pending()))
                scalar = self.loss(output) if self.loss else None
                if scalar is not None and any(tensor.requires_grad for _, tensor in tensors(output)):
                    torch.autograd.backward(scalar)
            gradients = _weight_gradients(selection, keep, parameters) if grads else {}
            return run, gradients, buffers, draws

    def rounding(self, pairs: list[Pair], matching: Matching, weights: list[Weight]) -> dict[int, float]:
        """The error that rounding explains in each pair, by number, where the models compute in other dtypes; none
        where a tolerance was given, or where something else of the modules differs that tells why."""
        dtype = coarser_dtype(pairs)
        found = {} if dtype is None else bounds(pairs, dtype)
        return {
            pair.number: found[pair.number]
            for pair in pairs
            if pair.number in found
            and self.allowed(pair.path_a) is None
            and not told_by_modules(pair, matching, (self.a, self.b), weights)
        }

    def verdicts(self, pairs: list[Pair], matching: Matching, rounding: Mapping[int, float]) -> dict[int, Verdict]:
        """What running alone told of each pair that gave something else, by number."""
        suspects = {
            (pair.path_a, pair.index): Suspect(
                self.b.modules[pair.path_b],
                matching.pairs[pair.number][1],
                self.allowed(pair.path_a),
                rounding.get(pair.number, 0.0),
            )
            for pair in pairs
            if pair.gives_other and pair.path_b in self.b.modules
        }
        if not suspects:
            return {}
        args, kwargs = copied_arguments(self.inputs[0][0])
        found = isolate(self.a, suspects, lambda: self.a.model(*args, **kwargs))
        return {pair.number: found[key] for pair in pairs if (key := (pair.path_a, pair.index)) in found}

    def explained(
        self, pair: Pair, matching: Matching, weights: list[Weight], verdict: Verdict | None, rounding: float
    ) -> Pair:
        """The pair with its causes, where it makes a difference."""
        if not pair.makes_it:
            return pair
        causes = why_modules(pair, matching, (self.a, self.b), weights, verdict, rounding=rounding)
        return replace(pair, causes=causes)

    def notes(self, verdicts: Mapping[int, Verdict]) -> Iterator[str]:
        """What to know of the comparison."""
        for which, (_, told) in zip(("first", "second"), self.inputs, strict=True):
            if told:
                yield f"the {which} was given the inputs in its own way: {told}"
        for selection in (self.a, self.b):
            for path, module in selection:
                if is_compiled(module):
                    name = path or _name(module)
                    yield f"{name} is compiled: to find who makes a difference, its modules are run uncompiled"
        for selection, which in ((self.a, "first"), (self.b, "second")):
            told = told_partly_meta(selection.model, which)
            if told:
                yield f"{told}; these are not compared"
            lost = updates_lost(selection.model)
            if lost:
                yield f"not compared: buffers of the {which} that accelerate reads from disk for each call: {few(lost)}"
        unfit = [verdict.reason for verdict in verdicts.values() if verdict.reason]
        if unfit:
            told = f"{len(unfit)} calls could not be run on the reference's inputs, and are judged by what was recorded"
            yield f"{told}; the first: {unfit[0]}"

    def notes_on(self, pairs: list[Pair], partners: Mapping[str, str]) -> Iterator[str]:
        """What was not compared, and why gradients differ where no call tells."""
        if only_shapes(pairs):
            yield "only shapes were compared: the tensors hold no numbers, or keep= kept none of them"
        if self.loss is None:
            return
        for selection, which in ((self.a, "first"), (self.b, "second")):
            brought = [name for name, each in selection.model.named_parameters() if each.requires_grad and each.is_meta]
            if brought and held_elsewhere(selection.model):
                yield f"not compared: gradients of parameters that accelerate offloads in the {which}: {few(brought)}"
        for place, which in enumerate(("first", "second")):
            found = (each for pair in pairs for part in (pair.grads, pair.grad_inputs) for each in part.values())
            if all(each.shapes[place] is None for each in found):
                yield f"no gradient was seen in the {which}, so there is none to compare"
        if any(pair.backs_other for pair in pairs):
            yield from held_otherwise(dict(walk(self.a.model)), dict(walk(self.b.model)), partners)


def _behind(pair: Pair) -> Iterator[Difference]:
    """The differences of what is not an output: gradients and buffers."""
    for part in (pair.grads, pair.grad_inputs, pair.buffers):
        yield from part.values()


def _weight_gradients(selection: Selection, keep: Any, lent: Mapping[str, Tensor]) -> dict[str, TensorInfo | None]:
    """The gradients of the parameters by name; of those that were lent in their place, where some were."""
    kept, elsewhere = keeper(keep, Pending()), held_elsewhere(selection.model)
    own = ((path, module.named_parameters(recurse=False)) for path, module in selection)
    named = (
        (full := f"{path}.{name}".lstrip("."), lent.get(full, parameter).grad)
        for path, each in own
        for name, parameter in each
        if not (parameter.is_meta and elsewhere)  # of which accelerate keeps no gradient
    )
    return {name: None if gradient is None else kept(gradient) for name, gradient in named}


def _partners(models: Models, matching: Matching) -> dict[str, str]:
    """Which modules' weights are compared: those of matched calls, and those that nobody calls, below partners."""
    taken, found = set(matching.paths.values()), dict(matching.paths)
    for path, _ in walk(models.a.model):  # parents first
        above, _, name = path.rpartition(".")
        partner = f"{found.get(above, above)}.{name}".lstrip(".")
        if path not in found and partner not in taken:
            found[path] = partner
    return found


def _name(model: Module) -> str:
    inner = getattr(model, "_orig_mod", None)
    return f"compiled {type(inner).__name__}" if isinstance(inner, Module) else type(model).__name__
