"""The arguments of a tool that runs a model over a data set, checked, and the signature that they make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module

from hookline.capturing import signature
from hookline.capturing.batch import Calls, Gather, Kept, Wish, cuda_devices
from hookline.capturing.batches import Bad, Batches, Errors
from hookline.capturing.chance import chance_of
from hookline.capturing.examples import Examples, Id, examples_of
from hookline.capturing.host import Copies
from hookline.capturing.rows import Rows
from hookline.edits.digest import digest_of
from hookline.errors import ArgumentError, ArgumentTypeError
from hookline.messages import dtype_name
from hookline.model.call_with import call_with
from hookline.model.loss import default_loss
from hookline.model.paths import DATA_PARALLEL
from hookline.model.select import Selection, Where, select
from hookline.model.sharded import is_distributed
from hookline.record.keep import takes_call

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(slots=True)
class Asked:
    """A model, some of its modules, a data set, and which rows of it count; the fields are the arguments of
    `hookline.capture`."""

    model: Module
    selection: Selection
    examples: Examples
    call: Callable[[Any], Any] | None
    run: Callable[[Module, Any], Any] | None
    rows: Rows | None
    keep: Kept
    key: Any
    calls: Calls
    loss: Callable[[Any], Tensor] | None
    dtype: torch.dtype | None
    id: Id
    errors: Errors
    seed: int

    @property
    def in_step(self) -> bool:
        """Whether the model is spread over the processes, so that all of them run the same batches."""
        return any(is_distributed(tensor) for tensor in (*self.model.parameters(), *self.model.buffers()))

    def batches(self, copies: Copies, bad: Bad) -> Batches:
        """What runs the model; see Batches."""
        run, loss = self.run or call_with, self.loss or default_loss
        wish = Wish(self.keep, self.key, self.rows, self.dtype, self.calls, run, loss)
        gather = Gather(self.model, wish, self.selection, copies=copies)
        return Batches(self.examples, gather, self.prepare, self.errors, self.seed, bad, self.in_step)

    @property
    def prepare(self) -> Callable[[Any], Any]:
        """Makes the model's inputs of a batch."""
        return self.call or (lambda given: given)

    def signature(self, unit: int | None = None) -> dict[str, Any]:
        """All that the rows depend on, as plain data: the modules and their weights, the functions, the data."""
        rows = self.rows
        found = {
            "points": signature.points(self.selection),
            "weights": signature.weights(self.model),
            "settings": digest_of(repr(self.model)),
            "hooks": signature.hooks(self.model),
            "autocast": signature.autocast(),
            "keep": signature.function(self.keep),
            "key": repr(self.key),
            "call": signature.function(self.call),
            "run": signature.function(self.run),
            "loss": signature.function(self.loss),
            "rows": None if rows is None else f"{rows!r}{'' if rows.choose is None else f' {digest_of(rows.choose)}'}",
            "calls": self.calls,
            "dtype": None if self.dtype is None else dtype_name(self.dtype),
            "batch": self.examples.batch,
            "unit": unit,
            "errors": self.errors,
            "seed": self.seed,
            "id": signature.function(self.id),
        }
        with chance_of(f"{self.seed}", cuda_devices(self.model)):
            found |= self.examples.signature()
        with chance_of(f"{self.seed} 0", cuda_devices(self.model)):  # of the first batch: a stream may go on from there
            try:
                found["inputs"] = first_inputs(self.examples, self.prepare)
            except Exception:
                if self.errors == "raise":
                    raise
                found["inputs"] = None  # the first batch has an example that fails
        return found


def asked(
    model: Module,
    data: Any,
    where: Where,
    *,
    call: Callable[[Any], Any] | None,
    run: Callable[[Module, Any], Any] | None,
    rows: Rows | None,
    keep: Kept,
    key: Any,
    calls: Calls,
    loss: Callable[[Any], Tensor] | None,
    dtype: torch.dtype | None = None,
    batch: int,
    id: Id,
    errors: Errors,
    seed: int,
) -> Asked:
    """The arguments of a tool, checked; ArgumentError for what it cannot take."""
    if type(model).__name__ in DATA_PARALLEL:
        bare: Any = model.module  # the wrapper's forward would wait for processes that have nothing left to do
        model = bare
    selection = select(model, where)
    expect_choices(rows, keep, calls, dtype, errors)
    expect_whole("batch", batch)
    if type(seed) is not int:
        raise ArgumentError(f"seed must be a whole number, not {seed!r}")
    expect_no_chance(model)
    with chance_of(f"{seed}", cuda_devices(model)):  # a sampler and a stream may draw their order
        examples = examples_of(data, batch, id, collate=call is None)
    return Asked(model, selection, examples, call, run, rows, keep, key, calls, loss, dtype, id, errors, seed)


def expect_choices(rows: Any, keep: Any, calls: Any, dtype: Any, errors: Any) -> None:
    """ArgumentError for a wrong value of one of these arguments."""
    if rows is not None and not isinstance(rows, Rows):
        raise ArgumentTypeError(f"rows= takes hookline.rows(...), not {rows!r}")
    if not callable(keep) and keep not in ("output", "input", "gradient"):
        raise ArgumentError(f"keep must be 'output', 'input', 'gradient' or a function, not {keep!r}")
    if callable(keep):
        takes_call(keep)
    if calls not in ("one", "first", "last", "join"):
        raise ArgumentError(f"calls must be 'one', 'first', 'last' or 'join', not {calls!r}")
    if calls == "join" and rows is None:
        raise ArgumentError("calls='join' needs rows=: the rows of one call come after those of the other")
    if errors not in ("raise", "skip"):
        raise ArgumentError(f"errors must be 'raise' or 'skip', not {errors!r}")
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise ArgumentTypeError(f"dtype must be a torch.dtype, not {dtype!r}")


def expect_whole(name: str, value: Any) -> None:
    """ArgumentError where an argument is not a whole number from 1."""
    if type(value) is not int or value < 1:
        raise ArgumentError(f"{name} must be a whole number from 1, not {value!r}")


def expect_no_chance(model: Module) -> None:
    """ArgumentError where a module is in training mode and gives other values each time."""
    random = next((path for path, module in model.named_modules() if module.training and is_random(module)), None)
    if random is not None:
        raise ArgumentError(
            f"{random!r} is in training mode, so that rows would depend on chance or on their batch; call model.eval()"
        )


def is_random(module: Module) -> bool:
    """Whether a module in training mode gives other values each time, or for other neighbours."""
    if isinstance(module, nn.RReLU | nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm):
        return True
    if isinstance(module, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d):
        return bool(module.track_running_stats)
    if isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return module.dropout > 0
    return isinstance(module, DROPOUTS) and module.p > 0


def first_inputs(examples: Examples, prepare: Callable[[Any], Any]) -> str:
    """A digest of the model's inputs for the first batch, in which a changed tokenizer shows."""
    stop = examples.batch if examples.count is None else min(examples.batch, examples.count)
    for _, batch, _ in examples.batches(0, stop):
        given = prepare(batch)
        return digest_of(dict(given) if isinstance(given, Mapping) else given)
    raise ArgumentError("the data set has no examples")
