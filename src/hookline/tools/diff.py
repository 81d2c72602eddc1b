"""diff: where two models, or two runs, differ; which module is the culprit, and why."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module

from hookline.compare.difference import Diff
from hookline.compare.models import diff_models
from hookline.compare.runs import diff_runs
from hookline.compare.tolerances import Tolerances, allowing
from hookline.errors import ArgumentError, ArgumentTypeError
from hookline.model.loss import default_loss
from hookline.model.select import Where, refuse_path_as_input
from hookline.record.keep import Keep
from hookline.record.record import Run


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
    allowing(tolerances)  # refuses what is not a tolerance
    if mapping is not None and not isinstance(mapping, Mapping):
        raise ArgumentTypeError(f"mapping= takes paths of the first by paths of the second, as a dict, not {mapping!r}")

    if isinstance(a, Run) and isinstance(b, Run):
        if args or kwargs or loss is not None or grads:
            raise ArgumentError("runs have been made already: diff(run_a, run_b) takes no inputs, loss= or grads=")
        return diff_runs(a, b, where=where, mapping=mapping, tolerances=tolerances)

    if isinstance(a, Module) and isinstance(b, Module):
        refuse_path_as_input("diff", a, args, kwargs)
        return diff_models(
            a,
            b,
            args,
            kwargs,
            where=where,
            mapping=mapping,
            tolerances=tolerances,
            loss=(loss or default_loss) if grads else None,
            keep=keep,
        )

    kinds = " and ".join(type(each).__name__ for each in (a, b))
    raise ArgumentTypeError(f"diff takes two models, or two runs, not {kinds}; watch the model to get a run of it")
