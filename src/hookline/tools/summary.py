"""summary: run a model once, print a table of its layers, and give the run."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Module, Parameter
from torch.nn.parameter import is_lazy

from hookline.errors import ArgumentError
from hookline.model.restored import restored
from hookline.model.select import Where, refuse_path_as_input, select
from hookline.record.keep import Keep
from hookline.record.record import CallRecord, Run, TensorInfo
from hookline.record.recorder import recording

if TYPE_CHECKING:
    from hookline.model.console import Console

FIGURES = ("mean", "std", "absmax")


def summary(
    model: Module,
    *args: Any,
    where: Where = "**",
    keep: Keep = "stats",
    console: "Console | None" = None,
    **kwargs: Any,
) -> Run:
    """Run the model once on these inputs, print a table of its layers, and give the `Run`.

    A row is a call: the layer, its class, the shape of its output, how many parameters it holds, and the mean, standard
    deviation and largest magnitude of the output where `keep` (as in `watch`) has them. The parameters of a layer that
    is called again are counted once. The model runs without gradients, in the mode that it is in; buffers and the
    random state are afterwards what they were.

    `where` (see `select`) says which modules are rows. The totals below are of the whole model.

    Raises ArgumentError where no input is given, or a path as the only one, which is `where=`; SelectionError where
    `where` picks nothing; what the model raises goes on.

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
    selection = select(model, where)
    if not args and not kwargs:
        raise ArgumentError("summary needs the model's inputs: summary(model, x)")
    refuse_path_as_input("summary", model, args, kwargs)
    with restored(model, (args, kwargs)), torch.no_grad(), recording(selection, keep=keep) as run:
        model(*args, **kwargs)
    _show(run, model, dict(selection), console)
    return run


def _show(run: Run, model: Module, modules: dict[str, Module], console: "Console | None") -> None:
    """Print the table of a run."""
    from hookline.model.console import Console, Table, Text

    figures = FIGURES if any(info.stats for call in run for info in call.outputs) else ()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for title in ("layer", "class", "output", "parameters", *figures):
        table.add_column(title, justify="right" if title in ("parameters", *figures) else "left", no_wrap=True)
    for call, cells in _rows(run, modules, figures):
        table.add_row(*map(Text, cells), style="red" if call.error else None)
    out = console or Console()
    out.print(table)
    out.print(Text(_totals(model)))


def _rows(run: Run, modules: dict[str, Module], figures: Iterable[str]) -> Iterator[tuple[CallRecord, list[str]]]:
    """Each call with its cells."""
    counted: set[str] = set()
    for call in run:
        above = f"{call.parent.path}." if call.parent is not None and call.parent.path else ""
        name = call.path.removeprefix(above) or call.type
        again = call.path in counted
        counted.add(call.path)
        parameters = "(again)" if again else f"{_count(modules[call.path].parameters()):,}"
        first = next(iter(call.outputs), None)
        yield call, ["  " * call.depth + name, call.type, _shape(first), parameters, *_figures(first, figures)]


def _shape(info: TensorInfo | None) -> str:
    return "" if info is None else "x".join(map(str, info.shape)) or "scalar"


def _figures(info: TensorInfo | None, names: Iterable[str]) -> list[str]:
    stats = None if info is None else info.stats
    return ["" if stats is None else f"{getattr(stats, name):.4g}" for name in names]


def _totals(model: Module) -> str:
    """How many parameters a model holds, and how many of them are trained."""
    held = [*model.parameters()]
    trainable = _count(parameter for parameter in held if parameter.requires_grad)
    return f"{_count(held):,} parameters, {trainable:,} trainable"


def _count(parameters: Iterable[Parameter]) -> int:
    """How many numbers parameters hold; those that a lazy module is yet to make are not counted."""
    return sum(parameter.numel() for parameter in parameters if not is_lazy(parameter))
