"""diff: compare two models, two runs or two captures, and name what differs first."""

from collections.abc import Callable, Mapping
from typing import Any, overload

from torch import Tensor
from torch.nn import Module

from hookline.capturing.captured import Capture
from hookline.capturing.compared import CaptureDiff
from hookline.capturing.comparing import diff_captures
from hookline.compare.difference import Diff
from hookline.compare.models import diff_models
from hookline.compare.runs import diff_runs
from hookline.compare.tolerances import Tolerances, allowing
from hookline.errors import ArgumentError, ArgumentTypeError
from hookline.model.loss import default_loss
from hookline.model.select import Where, refuse_path_as_input
from hookline.record.keep import Keep
from hookline.record.record import Run


@overload
def diff(a: Capture, b: Capture) -> CaptureDiff: ...
@overload
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
) -> Diff: ...
def diff(
    a: Module | Run | Capture,
    b: Module | Run | Capture,
    *args: Any,
    where: Where = "**",
    mapping: Mapping[str, str] | None = None,
    tolerances: Tolerances = None,
    loss: Callable[[Any], Tensor] | None = None,
    grads: bool = False,
    keep: Keep = "copy",
    **kwargs: Any,
) -> Diff | CaptureDiff:
    """Compare two models or two runs: the first call that differs, the module that causes it (the culprit), and why.

    `a` is the reference. Returns a `Diff`, which is true if they differ.

    - `diff(model_a, model_b, *args, **kwargs)` runs both models on copies of the same inputs, from the same random
      state, in the mode each is in. Then each module whose output differs is run alone on the inputs of its partner in
      the reference, innermost first. A module whose output differs there too is a culprit; the others pass a difference
      on. Updated buffers are compared too. Afterwards gradients, buffers and random state are restored.
    - `diff(run_a, run_b)` compares two runs, saved or not. To find the culprit, the runs need recorded inputs too:
      `watch(model, keep=hookline.fingerprint, inputs=hookline.fingerprint)` keeps them small.
    - `diff(capture_a, capture_b)` compares two captures row by row, bit for bit, and returns a `CaptureDiff`. It takes
      no other arguments.

    Calls are matched by path and index. `mapping` maps paths of `a` to paths of `b`, with stars and with everything
    below: `{"bert.encoder.layer.*": "layers.*"}`. For the modules left over on both sides, and for those that moved in
    a list of modules, partners are proposed by weights, values, class, shape and order.

    - `where`: which calls of `a` are compared (see `select`; for runs, globs).
    - `tolerances`: a pair (relative, absolute), or a dict of pairs by glob over the paths of `a`. By default those of
      `torch.testing` for the lower of the two dtypes. An element differs if |b - a| > absolute + relative * |a|.
    - `grads`: True runs backward too and compares gradients.
    - `loss`: a function of the output that backward starts from; by default the output's `.loss`, else its mean square.
    - `keep`: what is kept of each tensor for the comparison: "copy", or less for large models: `hookline.fingerprint`
      or "stats".

    Each model runs several times, so whatever its forward changes besides buffers changes several times. If a model has
    an argument of its own with one of these names, wrap the model in a module that passes it. Compiled models are
    compared inside; to find the culprit, their modules are run uncompiled.

    Raises ArgumentError for a model and a run, for a mapping that leads nowhere, for tolerances that match no path, and
    for a path as the only input, which is meant as `where=`. Raises CompareError if no call of the one matches a call
    of the other, and SelectionError if `where` picks nothing. An error of a model is raised as it is.

    >>> import copy, torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU(), torch.nn.LayerNorm(4))
    >>> port = copy.deepcopy(model)
    >>> port[1].approximate = "tanh"
    >>> found = hookline.diff(model, port, torch.randn(8, 4))
    >>> found.culprit.path, found.culprit.why
    ('1', "approximate 'none' vs 'tanh'")
    """
    allowing(tolerances)  # refuses what is not a tolerance
    if mapping is not None and not isinstance(mapping, Mapping):
        raise ArgumentTypeError(
            f"mapping must be a dict from paths of the first to paths of the second, not {mapping!r}"
        )

    if isinstance(a, Capture) and isinstance(b, Capture):
        usual = where == "**" and mapping is None and tolerances is None and loss is None and not grads
        if args or kwargs or not usual or keep != "copy":
            raise ArgumentError("captures are compared as they are: diff(capture_a, capture_b) takes nothing else")
        return diff_captures(a, b)

    if isinstance(a, Run) and isinstance(b, Run):
        if args or kwargs or loss is not None or grads:
            raise ArgumentError("recorded runs are not run again: diff(run_a, run_b) takes no inputs, loss= or grads=")
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
    raise ArgumentTypeError(
        f"diff takes two models, two runs or two captures, not {kinds}; watch the model to get a run of it"
    )
