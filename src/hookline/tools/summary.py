"""summary: run a model once, print a table of its layers, and return the run."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Module, Parameter
from torch.nn.parameter import is_lazy

from hookline.errors import ArgumentError
from hookline.model.restored import restored
from hookline.model.select import Where, refuse_path_as_input, select
from hookline.record.keep import Keep
from hookline.record.record import Run
from hookline.record.recorder import recording

if TYPE_CHECKING:
    from hookline.model.console import Console


def summary(
    model: Module,
    *args: Any,
    where: Where = "**",
    keep: Keep = "stats",
    console: "Console | None" = None,
    **kwargs: Any,
) -> Run:
    """Run the model once on these inputs, print a table of its layers, and return the `Run`.

    A row is a call: the layer, its class, the shape of its output, how many parameters it holds, and the mean, standard
    deviation and largest magnitude of the output where `keep` (as in `watch`) has them. The parameters of a layer that
    is called again are counted once. The model runs without gradients, in the mode that it is in; afterwards buffers
    and random state are restored.

    `where` (see `select`) says which modules are rows. The totals below are of the whole model.

    Raises ArgumentError without inputs and for a path as the only input, which is meant as `where=`, and SelectionError
    if `where` picks nothing. An error of the model is raised as it is.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> run = hookline.summary(model, torch.ones(3, 4), keep="shape")
    layer       class       output  parameters
    Sequential  Sequential  3x2             58
      0         Linear      3x8             40
      1         ReLU        3x8              0
      2         Linear      3x2             18
    58 parameters, 58 trainable
    >>> len(run)
    4
    """
    from hookline.model.console import Console

    selection = select(model, where)
    if not args and not kwargs:
        raise ArgumentError("summary needs the model's inputs: summary(model, x)")
    refuse_path_as_input("summary", model, args, kwargs)
    with restored(model, (args, kwargs)), torch.no_grad(), recording(selection, keep=keep) as run:
        model(*args, **kwargs)
    parameters = {path: _count(module.parameters()) for path, module in selection}
    (console or Console()).print(run._table("summary", parameters, _totals(model)))
    return run


def _totals(model: Module) -> str:
    """How many parameters a model holds, and how many of them are trained."""
    held = [*model.parameters()]
    trainable = _count(parameter for parameter in held if parameter.requires_grad)
    return f"{_count(held):,} parameters, {trainable:,} trainable"


def _count(parameters: Iterable[Parameter]) -> int:
    """How many elements parameters hold; those that a lazy module has not made yet are not counted."""
    return sum(parameter.numel() for parameter in parameters if not is_lazy(parameter))
