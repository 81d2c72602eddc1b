"""monitor: what every layer does over a whole training run, cheap enough to leave on."""

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from hookline.errors import ArgumentError, ArgumentTypeError
from hookline.messages import function_name, wrong_choice
from hookline.model.paths import DATA_PARALLEL
from hookline.model.select import Where, select
from hookline.monitoring.alerts import Alert
from hookline.monitoring.gauges import OF, Gauges
from hookline.monitoring.live import LiveMonitor, Respond, Writer
from hookline.monitoring.sums import COLUMNS, FIGURES, columns_for


def monitor(
    model: Module,
    optimizer: Optimizer | Iterable[Optimizer] | None = None,
    where: Where = "**",
    *,
    every: int | Callable[[int], Any] = 100,
    of: str | Sequence[str] = ("output", "grad", "weight_grad", "weight", "update"),
    figures: str | Sequence[str | Callable[[Tensor], Any]] = ("rms", "absmax", "zeros"),
    to: str | os.PathLike[str] | Writer | Sequence[str | os.PathLike[str] | Writer] = (),
    alert: Alert | Sequence[Alert] = (),
    then: Respond = "log",
    save: str | os.PathLike[str] | None = None,
    recorder: int = 0,
    page: str | os.PathLike[str] | None = None,
    distributed: bool = True,
) -> LiveMonitor:
    """Measure what every layer does over a training run. Call it once, before the loop; a step ends with the
    optimizer's.

    Returns a `LiveMonitor`, which is a `Monitor` of what was measured so far and a `with` block; `stop()` removes it.
    Losses and weights are bit for bit those without it. Between sampled steps nothing is attached to the model.

    - `optimizer`: one or several; steps of the first one are counted. Without one, call `monitor.step()`.
    - `where`: the modules (see `select`).
    - `every`: a sample each so many steps, or a function of the step's number; the first ten steps always. The
      microbatches of a step are added up.
    - `of`: "output" (the first floating tensor of it) and "grad" (its gradient) in training; of the parameters of the
      selected modules "weight", "weight_grad", "update" (what a step changed) and "state" (of the optimizer). With
      weights and updates there is a "ratio" of their norms, of matrices.
    - `figures`: "mean", "std", "rms", "norm", "absmax", "kurtosis" (about 0), "zeros" (a share), "unfinite" (a number),
      or a function of a tensor that gives a number: its mean over the tensors of a step, by the function's name.
    - `to`: a folder that samples are written to as they come (`hookline.load` reads it at any time), a writer of
      `hookline.writers`, any function of a step and a dict of figures, or several of these. One that fails warns once.
    - `alert`: rules of `hookline.alerts`. `then`: "log", "raise" (AlertError), or a function of the finding.
    - `save`: a folder to which the run of the step after the first alert is saved.
    - `recorder`: how many of the last steps, sampled or not, stay on the device (`monitor.recent()`); hooks are then
      attached in every step.
    - `page`: an HTML file that is written anew every half minute, and loads itself again.
    - `distributed`: figures are those of all processes of `torch.distributed`, each of which must call this; False
      measures each process by itself.

    A loss scaler scales "grad"; the gradients of weights are unscaled before the optimizer's step. A step that the
    scaler skips is added to the next one.

    Raises SelectionError if `where` picks nothing, ArgumentError for an unknown figure, StoreError where the folder
    holds something else.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> monitor = hookline.monitor(model, optimizer)
    >>> for _ in range(3):
    ...     model(torch.ones(2, 4)).sum().backward()
    ...     optimizer.step()
    >>> monitor.series("0", "output", "rms").steps[:, 0]
    tensor([0, 1, 2])
    >>> monitor.stop()
    """
    if type(model).__name__ in DATA_PARALLEL:
        bare: Any = model.module  # the wrapper has no weights of its own
        model = bare
    optimizers = unwrapped(optimizer)
    kinds = several(of)
    functions = [figures] if callable(figures) else [each for each in figures if callable(each)]
    names = [] if callable(figures) else [each for each in several(figures) if not callable(each)]
    for name, given, known in (("of", kinds, OF), ("figures", names, FIGURES)):
        for each in given:
            if each not in known:
                raise ArgumentError(wrong_choice(name, each, [*map(repr, known)]))
    own = [*map(function_name, functions)]
    if len({*own, *FIGURES, "tensors", *COLUMNS}) < len({*FIGURES, "tensors", *COLUMNS}) + len(own):
        raise ArgumentError(f"each function of figures= needs a name of its own, not {', '.join(own)}")
    if not kinds:
        raise ArgumentError("of= must name something to measure, not nothing")
    if not callable(every) and (type(every) is not int or every < 1):
        raise ArgumentError(f"every must be a whole number from 1, or a function of the step, not {every!r}")
    if type(recorder) is not int or recorder < 0:
        raise ArgumentError(f"recorder must be 0 or more, how many steps it holds, not {recorder!r}")
    if then not in ("log", "raise") and not callable(then):
        raise ArgumentError(f"then must be 'log', 'raise' or a function of the finding, not {then!r}")
    rules = [alert] if callable(alert) else [*alert]
    names += [each for each in needed(rules, kinds, own) if each not in (*names, *own)]
    folder, writers = targets(to)
    selection = select(model, where)
    gauges = Gauges(selection, kinds, columns_for(names), together=distributed, functions=functions)
    return LiveMonitor(
        selection,
        optimizers,
        gauges,
        every=every,
        figures=[*names, *own],
        folder=folder,
        writers=writers,
        alerts=rules,
        then=then,
        save=save,
        recorder=recorder,
        page=page,
    )


def several(given: Any) -> list[Any]:
    """One name or several, each once."""
    return [given] if isinstance(given, str) else [*dict.fromkeys(given)]


def unwrapped(given: Any) -> list[Optimizer]:
    """The optimizers, without the wrappers of libraries such as accelerate."""
    found = []
    for each in [] if given is None else [given] if hasattr(given, "param_groups") else [*given]:
        while isinstance(getattr(each, "optimizer", None), Optimizer):
            each = each.optimizer
        if not isinstance(each, Optimizer):
            raise ArgumentTypeError(f"optimizer must be an optimizer of torch.optim, or several, not {each!r}")
        found.append(each)
    return found


def needed(rules: Sequence[Alert], of: Sequence[str], own: Sequence[str]) -> list[str]:
    """The figures that alerts look at; ArgumentError where they cannot be had. `own` are those of the user."""
    found = []
    for each in rules:
        if not callable(each):
            raise ArgumentTypeError(
                f"alert must be a rule of hookline.alerts, such as alerts.jump('rms'), not {each!r}"
            )
        wanted = {"dead": "zeros", "nonfinite": "unfinite"}.get(
            getattr(each, "rule", ""), getattr(each, "figure", None)
        )
        if getattr(each, "rule", "") == "update-ratio":
            if not {"weight", "update"} <= {*of}:
                raise ArgumentError("alerts.update_ratio needs of= with 'weight' and 'update'")
        elif wanted is not None and wanted not in (*FIGURES, *own):
            raise ArgumentError(wrong_choice("figure", wanted, [*map(repr, FIGURES)]))
        elif wanted is not None:
            found.append(wanted)
    return found


def targets(to: Any) -> tuple[str | os.PathLike[str] | None, list[Writer]]:
    """The folder and the writers among what `to` names."""
    given = [to] if isinstance(to, str | os.PathLike) or callable(to) else [*to]
    folders = [each for each in given if isinstance(each, str | os.PathLike)]
    writers = [each for each in given if callable(each)]
    if len(folders) + len(writers) < len(given):
        strange = next(each for each in given if not isinstance(each, str | os.PathLike) and not callable(each))
        raise ArgumentTypeError(f"to= takes folders and functions of a step and figures, not {strange!r}")
    if len(folders) > 1:
        raise ArgumentError(f"to= takes one folder, not {len(folders)}")
    return (folders[0] if folders else None), writers
