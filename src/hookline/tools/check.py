"""check: report what is wrong with a model or its training, where it began, and what to do."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from hookline.checking import RULES, Evidence, Findings, Rule
from hookline.checking.fold import fold
from hookline.checking.gather import Gathering, gathering
from hookline.checking.looked import looked
from hookline.engine.compiled import uncompiled
from hookline.errors import ArgumentError, HooklineError
from hookline.model.loss import default_loss
from hookline.model.restored import restored
from hookline.model.select import Selection, Where, refuse_path_as_input, select
from hookline.model.tensors import tensors
from hookline.record.record import Run
from hookline.record.recorder import recording


def check(
    subject: Module | Run,
    *args: Any,
    loss: Callable[[Any], Tensor] | None = None,
    where: Where = "**",
    rules: Iterable[Rule] = RULES,
    **kwargs: Any,
) -> Findings:
    """Report what is wrong with a model or its training, where it began, and what to do.

    Returns `Findings`, worst first, which are true if there is more than notes.

    - `check(model, *args, **kwargs)` runs the model once forward and backward, in the mode it is in. Afterwards
      gradients, buffers, and the random state of torch, numpy and Python are restored.
    - `with check(model) as findings:` watches your own training steps inside the block, and judges them when the block
      ends. An exception ends it too, and is raised as it is.
    - `check(run)` judges a run, saved or not, by the rules that need no model. The rules see most in a run of
      `watch(model, inputs="stats", grads=True)`.

    The arguments:

    - `loss`: a function of the output that backward starts from; by default the output's `.loss`, else the mean square
      of its tensors that require a gradient.
    - `where`: which modules are watched (see `select`).
    - `rules`: the rules to ask, such as `[*hookline.RULES, mine]`.

    In the first form an error of the model, the loss or the backward pass is a finding and `findings.error`; it is not
    raised. If the model has an argument called `loss`, `where` or `rules`, use the second form.

    In the first form compiled modules run uncompiled, and a warning says so. In the second they run as they are: the
    rules see every call and its figures, but nothing else inside a graph, and a warning says that.

    Each optimizer step in the block costs a copy of the weights. Whatever a forward changes besides buffers changes
    here too: a lazy module is materialized, an attribute is set, an input is changed in place.

    Raises SelectionError if `where` picks nothing, and ArgumentError for a run with inputs and for a path as the only
    input, which is meant as `where=`.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Softmax(dim=-1))
    >>> bool(hookline.check(model, torch.randn(8, 4)))
    False
    >>> with torch.no_grad():
    ...     _ = model[0].weight.fill_(float("nan"))
    >>> print(*hookline.check(model, torch.randn(8, 4)))
    error: 0: its parameter weight held 16 NaN before the first call [nonfinite-parameter]
    """
    asked = tuple(rules)
    if isinstance(subject, Run):
        if args or kwargs or loss is not None:
            raise ArgumentError("a recorded run is not run again: check(run) takes no inputs and no loss")
        return _judged(Findings(), asked, Evidence(subject))
    selection = select(subject, where)
    refuse_path_as_input("check", subject, args, kwargs)
    findings = Findings(block=partial(_watching, selection, asked))
    if args or kwargs:
        _run_once(selection, asked, findings, args, kwargs, loss or default_loss)
    return findings


def _judged(
    findings: Findings, rules: tuple[Rule, ...], evidence: Evidence, error: BaseException | None = None
) -> Findings:
    found = fold((each for rule in rules for each in rule(evidence)), evidence)
    return findings.settle(evidence.run, found, error, looked=looked(evidence, rules))


@contextmanager
def _watching(selection: Selection, rules: tuple[Rule, ...], findings: Findings) -> Iterator[None]:
    """A block that watches training steps and judges them at its end; an exception is judged and raised."""
    error: BaseException | None = None
    with recording(selection, inputs="stats", grads=True) as run, gathering(selection) as gathered:
        try:
            yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            _settle(findings, rules, run, gathered, error)


def _settle(
    findings: Findings, rules: tuple[Rule, ...], run: Run, gathered: Gathering, error: BaseException | None
) -> None:
    gathered.error = error
    _judged(findings, rules, gathered.evidence(run), error)


def _run_once(
    selection: Selection,
    rules: tuple[Rule, ...],
    findings: Findings,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    loss: Callable[[Any], Tensor | None],
) -> None:
    """Run one forward and backward and judge them; afterwards restore the model."""
    error: BaseException | None = None
    model = selection.model
    with (
        uncompiled(model, "checked uncompiled, since a graph does not show all that the rules ask for"),
        restored(model, (args, kwargs)),
        torch.inference_mode(False),
        torch.enable_grad(),
        recording(selection, inputs="stats", grads=True) as run,
        gathering(selection) as gathered,
    ):
        try:
            output = model(*args, **kwargs)
            scalar = loss(output)
            gathered.loss = None if scalar is None or scalar.is_meta else float(scalar.detach())
            if scalar is not None and scalar.requires_grad:
                gathered.see_loss(scalar, output)
            if scalar is not None and any(tensor.requires_grad for _, tensor in tensors(output)):
                torch.autograd.backward(scalar)
        except HooklineError:
            raise
        except Exception as raised:
            error = raised
        _settle(findings, rules, run, gathered, error)
