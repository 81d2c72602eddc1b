"""capture: the activations of a data set on disk, exactly once; open reads them."""

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Module

from hookline.capturing import signature
from hookline.capturing.batch import Calls, Gather, Kept, Wish
from hookline.capturing.captured import VERSION, Capture, open_capture, unit_name
from hookline.capturing.chance import chance_of
from hookline.capturing.examples import Examples, Id, examples_of
from hookline.capturing.folder import Folder, folder_of
from hookline.capturing.rows import Rows
from hookline.capturing.work import Errors, Progress, Work
from hookline.edits.digest import digest_of
from hookline.errors import ArgumentError, ArgumentTypeError
from hookline.messages import counted, dtype_name, few
from hookline.model.call_with import call_with
from hookline.model.loss import default_loss
from hookline.model.paths import DATA_PARALLEL
from hookline.model.select import Where, select
from hookline.model.sharded import is_distributed, rank_and_world
from hookline.record.keep import takes_call
from hookline.store.folder import FORMAT

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
PROCESSES = (  # what says which process this is, and of how many
    ("RANK", "WORLD_SIZE"),
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
)


def capture(
    model: Module,
    data: Any,
    where: Where,
    *,
    to: str | os.PathLike[str],
    call: Callable[[Any], Any] | None = None,
    run: Callable[[Module, Any], Any] | None = None,
    rows: Rows | None = None,
    keep: Kept = "output",
    key: Any = None,
    calls: Calls = "one",
    loss: Callable[[Any], Tensor] | None = None,
    dtype: torch.dtype | None = None,
    batch: int = 32,
    unit: int | None = None,
    id: Id = None,
    errors: Errors = "raise",
    seed: int = 0,
    progress: bool = True,
) -> Capture:
    """Run the model over a data set and write the activations of the selected modules to a folder, each exactly once.

    Killed, it goes on where it stopped when it is called again; data files that have been lost since are written again.
    Several processes of `torchrun`, of Slurm or of a cluster share the work. Returns the `Capture`, which
    `hookline.open(to)` also gives.

    - `data`: anything with `len` and `[]`, as a list or a HF Dataset; a DataLoader that does not shuffle; or a stream
      that can be iterated anew, with `id`.
    - `where`: the modules (see `select`).
    - `to`: the folder, or an fsspec URL such as "s3://bucket/acts" (`pip install 'hookline[remote]'`).
    - `call`: makes the model's inputs of a batch: a dict is passed as keyword arguments, a tuple as positional ones.
      The batch is a dict of lists where examples have fields, else a list of examples. Without `call` the examples are
      put together by PyTorch's `default_collate`.
    - `run`: calls the model, as `run(model, inputs)`; to generate, `lambda model, inputs: model.generate(**inputs)`.
    - `rows`: which positions count (see `hookline.rows`); without it an example is one row.
    - `keep`: "output", "input", "gradient" (of the output, with `loss`), or a function of the output, or of the output
      and its Call, that gives a tensor or a dict of tensors; `key` picks one tensor where there are several.
    - `calls`: for a module that is called several times in a batch: "first", "last", or "join" the rows of all.
    - `dtype`: of the values on disk, by default as they are.
    - `batch`: examples in a batch; `unit`: in a unit of work, by default eight batches. A kill loses at most one unit
      in each process.
    - `errors`: "raise", or "skip" examples that fail or have NaN: they are listed in `capture.skipped`.
    - `seed`: of what the data, `call` or `run` draw at random, such as `generate(do_sample=True)`. Each batch has its
      own random numbers, whoever computes it; the program's generators (torch, numpy, Python) do not move.

    Raises CaptureError where the folder holds a capture of something else, naming the first difference; where a tensor
    does not have examples along dimension 0; where an example fails.

    >>> import tempfile, torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()).eval()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     acts = hookline.capture(model, torch.randn(100, 4), ["0", "1"], to=folder, progress=False)
    ...     acts["1"][99].shape, len(acts["1"]), acts.finished
    (torch.Size([8]), 100, True)
    """
    if type(model).__name__ in DATA_PARALLEL:
        bare: Any = model.module  # the wrapper's forward would wait for processes that have nothing left to do
        model = bare
    selection = select(model, where)
    size = checked(model, rows, keep, calls, dtype, batch, unit, errors)
    if type(seed) is not int:
        raise ArgumentError(f"seed must be a whole number, not {seed!r}")
    examples = examples_of(data, batch, id, collate=call is None)
    size = size if unit is not None else examples.batch * 8
    if size % examples.batch:
        raise ArgumentError(f"unit must be a multiple of the batch, {examples.batch}, not {size}")
    folder = folder_of(to)
    prepare = call or (lambda given: given)

    wish = Wish(keep, key, rows, dtype, calls, run or call_with, loss or default_loss)
    gather = Gather(model, wish, selection)
    ours = {
        "points": signature.points(selection),
        "weights": signature.weights(model),
        "settings": digest_of(repr(model)),
        "hooks": signature.hooks(model),
        "autocast": signature.autocast(),
        "keep": signature.function(keep),
        "key": repr(key),
        "call": signature.function(call),
        "run": signature.function(run),
        "loss": signature.function(loss),
        "rows": None if rows is None else f"{rows!r}{'' if rows.choose is None else f' {digest_of(rows.choose)}'}",
        "calls": calls,
        "dtype": None if dtype is None else dtype_name(dtype),
        "batch": examples.batch,
        "unit": size,
        "errors": errors,
        "seed": seed,
        "id": signature.function(id),
    }
    with chance_of(f"{seed}", gather.devices):
        ours |= examples.signature()
        try:
            ours["inputs"] = first_inputs(examples, prepare)
        except Exception:
            if errors == "raise":
                raise
            ours["inputs"] = None  # the first batch has an example that fails
    rank, world = place_among_processes()
    in_step = any(is_distributed(tensor) for tensor in (*model.parameters(), *model.buffers()))
    writes = not in_step or rank == 0
    if writes:
        folder.create()
        begin(folder, type(model).__name__, ours)
        forget_damaged(folder)
    with gather.attach(), telling(progress) as tell:
        Work(folder, examples, gather, prepare, size, errors, seed, rank, world, tell, in_step, writes).run()
    found = open_capture(folder)
    if writes:
        folder.sweep(found.files)
    return found


def open(folder: str | os.PathLike[str]) -> Capture:
    """The capture in a folder: `open(folder)[path]` is a `Point`. It may still be in the making: what is not done is in
    `missing`.

    Raises StoreError where there is none, or where it is damaged.
    """
    return open_capture(folder_of(folder))


def checked(model: Module, rows: Any, keep: Any, calls: Any, dtype: Any, batch: Any, unit: Any, errors: Any) -> int:
    """The size of a unit where it is given, else 0; ArgumentError for what `capture` cannot take."""
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
    for name, value in (("batch", batch), ("unit", unit)):
        if value is not None and (type(value) is not int or value < 1):
            raise ArgumentError(f"{name} must be a whole number from 1, not {value!r}")
    random = next((path for path, module in model.named_modules() if module.training and is_random(module)), None)
    if random is not None:
        raise ArgumentError(
            f"{random!r} is in training mode, so that rows would depend on chance or on their batch; call model.eval()"
        )
    return unit or 0


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


def begin(folder: Folder, model: str, ours: dict[str, Any]) -> None:
    """Write what is captured, or compare it with what the folder holds already."""
    versions = signature.versions()
    header = {"format": FORMAT, "version": VERSION, "model": model, "signature": ours, "versions": versions}
    if folder.commit("capture.json", json.dumps(header, indent=1, allow_nan=False).encode()):
        return
    there = open_capture(folder)
    signature.compare(str(folder), there.signature, json.loads(json.dumps(ours)))
    signature.compare_versions(str(folder), there.versions, versions)


def forget_damaged(folder: Folder) -> None:
    """Remove the records of units whose data is gone, so that they are done again, with a warning that says which."""
    there = open_capture(folder)
    damaged = there.damaged()
    if damaged:
        which = few([str(number) for number in damaged])
        warnings.warn(
            f"{folder} has lost data of {counted(len(damaged), 'unit')} ({which}), which is captured again",
            stacklevel=3,
        )
        folder.remove(unit_name(number) for number in damaged)


def place_among_processes() -> tuple[int, int]:
    """The number of this process and how many there are: of torch.distributed, of torchrun, of Slurm."""
    rank, world = rank_and_world()
    if rank is not None and world is not None:
        return rank, world
    for own, all_ in PROCESSES:
        try:
            place = int(os.environ[own]) % int(os.environ[all_]), int(os.environ[all_])
        except (KeyError, ValueError, ZeroDivisionError):
            continue
        if place[1] > 1:
            return place
    return 0, 1


@contextmanager
def telling(progress: bool) -> Iterator[Callable[[Progress], None]]:
    """A line on stderr that says how far the work is, where that is a terminal."""
    from hookline.model.console import Console

    console = Console(stderr=True)
    if not (progress and console.is_terminal):
        yield lambda progress: None
        return
    with console.status("capturing") as status:

        def tell(now: Progress) -> None:
            of = "" if now.units is None else f" of {now.units}"
            waited = f", {now.waited / now.seconds:.0%} of the time waiting for the disk" if now.waited > 0.01 else ""
            status.update(f"capturing: {now.done}{of} units, {now.examples / now.seconds:.0f} examples/s here{waited}")

        yield tell
