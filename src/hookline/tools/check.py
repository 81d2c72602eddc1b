"""check: what is wrong with a model or its training, where it began, and what to do about it."""

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
    """What is wrong with a model or its training, where it began, and what to do: `Findings`, worst first, true where
    there is more than notes.

    - `check(model, *args, **kwargs)` runs the model once forward and backward, in the mode it is in. `loss` makes a
      scalar of its output; by default that is the output's `.loss`, else the mean square of its tensors that require a
      gradient. Afterwards gradients, buffers, and the random state of torch, numpy and Python are what they were.
    - `with check(model) as findings:` watches the steps of yours in the block, and judges when it is left, also by an
      exception, which goes on.
    - `check(run)` judges a run, saved or not, by the rules that need no more than that: best of
      `watch(model, inputs="stats", grads=True)`.

    What the model, the loss or the backward pass raises in the first form is a finding, and is `findings.error`; it is
    not raised. `where` (see `select`) says which modules are watched, `rules` what is asked: `[*hookline.RULES, mine]`.
    An argument of the model's own that is called `loss`, `where` or `rules` goes with the second form.

    In the first form what is compiled is run uncompiled, and a warning says so. In the second it runs as it is: the
    rules see every call and its figures, but not what else they look for inside a graph, and a warning says that.

    Each step of an optimizer in the block costs a copy of the weights. What a forward does to a model beyond its
    buffers it does here too: a lazy module is made, an attribute is set, an input that it changes in place is changed.

    Raises SelectionError where `where` picks nothing, ArgumentError for a run with inputs, and for a
    path given as the only input: that is `where=`.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Softmax(dim=-1))
    >>> bool(hookline.check(model, torch.randn(8, 4)))
    False
    >>> with torch.no_grad():
    ...     _ = model[0].weight.fill_(float("nan"))
    >>> print(*hookline.check(model, torch.randn(8, 4)))
    error: 0: its parameter weight held 16 NaN before anything ran [nonfinite-parameter]
    """
    asked = tuple(rules)
    if isinstance(subject, Run):
        if args or kwargs or loss is not None:
            raise ArgumentError("a run has been made already: check(run) takes no inputs and no loss")
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
    """The block in which the caller's own steps are watched; an exception is judged, and goes on."""
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
    """One forward and backward, judged; the model is afterwards what it was."""
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
