"""Activations: a model's activations as columns of batches, for pipelines that store rows by themselves."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import Module

from hookline.capturing.batch import Calls, Gather, Kept, Wish
from hookline.capturing.block import Block
from hookline.capturing.chance import number_of
from hookline.capturing.point import as_numpy
from hookline.capturing.rows import Rows
from hookline.errors import ArgumentError
from hookline.model.call_with import call_with
from hookline.model.loss import default_loss
from hookline.model.select import Where, select


class Activations:
    """A callable class that adds the activations of the selected modules to batches, as `map_batches` of Ray Data takes
    it: `dataset.map_batches(hookline.Activations, fn_constructor_args=(make_model, "encoder.*"), concurrency=2)`.

    `model` is a module, or a function that makes one, called once in each worker. A batch is a dict of columns; the one
    that is returned has a column more for each point, named by its path: an array of one array for each example.
    `call`, `rows`, `keep`, `key`, `calls`, `run` and `dtype` are those of `hookline.capture`; numpy has no bfloat16,
    which becomes float32. `id` names the column by which `rows(sample=...)` knows an example again.

    >>> import numpy, torch, hookline
    >>> activations = hookline.Activations(torch.nn.Linear(3, 2), "", call=lambda batch: torch.tensor(batch["x"]))
    >>> added = activations({"x": numpy.ones((4, 3), "float32")})
    >>> sorted(added), added[""][0].shape
    (['', 'x'], (2,))
    """

    def __init__(
        self,
        model: Module | Callable[[], Module],
        where: Where,
        *,
        call: Callable[[Any], Any],
        rows: Rows | None = None,
        keep: Kept = "output",
        key: Any = None,
        calls: Calls = "one",
        run: Callable[[Module, Any], Any] | None = None,
        dtype: torch.dtype | None = None,
        id: str | None = None,
    ) -> None:
        if rows is not None and rows.sample is not None and id is None:
            raise ArgumentError("rows(sample=...) needs id=, the column by which an example is known again")
        self.model = model if isinstance(model, Module) else model()
        selection = select(self.model, where)
        self.call, self.id, self.rows = call, id, rows
        self.gather = Gather(self.model, Wish(keep, key, rows, dtype, calls, run or call_with, default_loss), selection)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with a column more for each point."""
        count = len(next(iter(batch.values())))
        numbers = [*range(count)] if self.id is None else [number_of(str(each)) for each in batch[self.id]]
        with self.gather.attach():
            found = self.gather.batch(self.call(batch), numbers)
        return {**batch, **{path: by_example(block, ragged=self.rows is not None) for path, block in found.items()}}


def by_example(block: Block, *, ragged: bool) -> Any:
    """The rows of each example, as an array of arrays; as one array where each example is one row."""
    import numpy

    values = as_numpy(block.values)
    if not ragged:
        return values
    column: Any = numpy.empty(len(block.counts), dtype=object)
    column[:] = numpy.split(values, numpy.cumsum(block.counts)[:-1])
    return column
