"""diff: where two models, or two runs, part; which module makes the difference, and why."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from hookline.compare.apart import with_apart
from hookline.compare.assemble import assembled, only_shapes
from hookline.compare.buffers import Buffers, buffers_of, with_buffers
from hookline.compare.explain import why_modules
from hookline.compare.inputs import Inputs, fitted
from hookline.compare.isolate import Suspect, Verdict, isolate
from hookline.compare.judge import (
    Allowed,
    Tolerances,
    allowing,
    compare_calls,
    judge,
    refuse_idle,
    with_weight_gradients,
)
from hookline.compare.keep import Once
from hookline.compare.match import Matching, match
from hookline.compare.result import Diff, Pair, Weight
from hookline.compare.runs import diff_of_runs
from hookline.compare.visible import with_wrappers
from hookline.compare.weights import differing_weights, held_otherwise
from hookline.engine.compiled import is_compiled
from hookline.errors import CompareError, SelectionError
from hookline.model.as_it_was import as_it_was
from hookline.model.copies import copied_arguments
from hookline.model.loss import default_loss
from hookline.model.paths import walk
from hookline.model.select import Selection, Where, select
from hookline.model.tensors import tensors
from hookline.record.keep import Keep, keeper
from hookline.record.measure import Pending
from hookline.record.record import Run, TensorInfo
from hookline.record.recording import recording


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
    its `first`, the `culprit` that makes the difference, and why.

    - `diff(model_a, model_b, *args, **kwargs)` runs both on copies of the same inputs, from the same random state, in
      the modes they are in. Then each module that gave something else is run alone on what the reference's was given,
      innermost first: one that gives something else there makes the difference, the others pass one on. What the
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

    Raises CompareError for a model and a run, for a mapping that leads nowhere, for tolerances that fit no path, and
    where no call of the one belongs to a call of the other; SelectionError where `where`
    picks nothing; what a model raises goes on.

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
        raise CompareError(f"mapping= takes paths of the first by paths of the second, as a dict, not {mapping!r}")
    if isinstance(a, Run) and isinstance(b, Run):
        if args or kwargs or loss is not None or grads:
            raise CompareError("runs have been made already: diff(run_a, run_b) takes no inputs, loss= or grads=")
        return diff_of_runs(a, b, where, mapping, tolerances)
    if not (isinstance(a, Module) and isinstance(b, Module)):
        kinds = " and ".join(type(each).__name__ for each in (a, b))
        raise CompareError(f"diff takes two models, or two runs, not {kinds}; watch the model to get a run of it")
    first, second = _selections(a, b, where, mapping)
    gradient = (loss or default_loss) if grads else None
    inputs = fitted((args, kwargs), a), fitted((args, kwargs), b)
    return Models(first, second, inputs, gradient, keep, allowing(tolerances)).diff(mapping, tolerances)


# Two models


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
        run_a, grads_a, buffers_a = self.recorded(self.a, self.inputs[0][0])
        run_b, grads_b, buffers_b = self.recorded(self.b, self.inputs[1][0])
        modules = self.a.modules, self.b.modules
        matching = match(run_a, run_b, mapping=mapping, modules=modules)
        pairs = with_apart(compare_calls(run_a, matching, self.allowed))
        refuse_idle(tolerances, pairs)
        pairs = with_weight_gradients(pairs, grads_a, grads_b, self.allowed)
        partners = _partners(self, matching)
        pairs = with_buffers(pairs, buffers_a, buffers_b, partners, keeper(self.kept, Pending()), self.allowed)

        verdicts = self.verdicts(pairs, matching)
        pairs = judge(pairs, {number: verdict.makes_it for number, verdict in verdicts.items()})
        weights = differing_weights(dict(walk(self.a.model)), dict(walk(self.b.model)), partners)
        pairs = [self.explained(pair, matching, weights, verdicts.get(pair.number)) for pair in pairs]
        notes = *self.notes(verdicts), *self.notes_on(pairs, partners)
        names = _name(self.a.model), _name(self.b.model)
        return assembled(names, pairs, matching, notes, weights, every_call=bool(tolerances))

    @property
    def kept(self) -> Keep:
        """What is kept of tensors that are put back to what they were."""
        return "copy" if self.keep == "tensor" else self.keep

    def recorded(self, selection: Selection, inputs: Inputs) -> tuple[Run, dict[str, TensorInfo | None], Buffers]:
        """A run of one of the models, its parameters' gradients by name, and the buffers that it updated."""
        model, keep = selection.model, Once(self.keep) if callable(self.keep) or self.keep == "copy" else self.keep
        grads: bool | Any = "input" if self.loss else False
        with torch.inference_mode(False), torch.set_grad_enabled(bool(grads)), ExitStack() as stack:
            args, kwargs = copied_arguments(inputs)  # inside, since autograd takes no copy that inference mode makes
            held = stack.enter_context(as_it_was(model, (args, kwargs)))
            with recording(selection, keep=keep, inputs=keep, grads=grads) as run:
                output = model(*args, **kwargs)
                buffers = buffers_of(held, keeper(self.kept, Pending()))
                scalar = self.loss(output) if self.loss else None
                if scalar is not None and any(tensor.requires_grad for _, tensor in tensors(output)):
                    torch.autograd.backward(scalar)
            return run, _weight_gradients(selection, keep) if grads else {}, buffers

    def verdicts(self, pairs: list[Pair], matching: Matching) -> dict[int, Verdict]:
        """What running alone told of each pair that gave something else, by number."""
        suspects = {
            (pair.path_a, pair.index): Suspect(
                self.b.modules[pair.path_b], matching.pairs[pair.number][1], self.allowed(pair.path_a)
            )
            for pair in pairs
            if pair.gives_other and pair.path_b in self.b.modules
        }
        if not suspects:
            return {}
        args, kwargs = copied_arguments(self.inputs[0][0])
        found = isolate(self.a, suspects, lambda: self.a.model(*args, **kwargs))
        return {pair.number: found[key] for pair in pairs if (key := (pair.path_a, pair.index)) in found}

    def explained(self, pair: Pair, matching: Matching, weights: list[Weight], verdict: Verdict | None) -> Pair:
        """The pair with its causes, where it makes a difference."""
        if not pair.makes_it:
            return pair
        return replace(pair, causes=why_modules(pair, matching, (self.a, self.b), weights, verdict))

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
        for place, which in enumerate(("first", "second")):
            found = (each for pair in pairs for part in (pair.grads, pair.grad_inputs) for each in part.values())
            if all(each.shapes[place] is None for each in found):
                yield f"no gradient was seen in the {which}, so there is none to compare"
        if any(pair.backs_other for pair in pairs):
            yield from held_otherwise(dict(walk(self.a.model)), dict(walk(self.b.model)), partners)


def _weight_gradients(selection: Selection, keep: Any) -> dict[str, TensorInfo | None]:
    kept = keeper(keep, Pending())
    own = ((path, module.named_parameters(recurse=False)) for path, module in selection)
    named = ((f"{path}.{name}".lstrip("."), parameter.grad) for path, each in own for name, parameter in each)
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
