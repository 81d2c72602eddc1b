"""capture: the activations of a data set on disk, exactly once; open reads them."""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from hookline.capturing import signature
from hookline.capturing.asked import asked, expect_whole
from hookline.capturing.batch import Calls, Kept
from hookline.capturing.batches import Errors, nan_in
from hookline.capturing.captured import VERSION, Capture, open_capture, unit_name
from hookline.capturing.examples import Id
from hookline.capturing.folder import Folder, folder_of
from hookline.capturing.host import HostCopies
from hookline.capturing.progress import line_on_terminal
from hookline.capturing.rows import Rows
from hookline.capturing.work import Progress, Work
from hookline.errors import ArgumentError
from hookline.messages import counted, few
from hookline.model.select import Where
from hookline.model.sharded import rank_and_world
from hookline.store.folder import FORMAT

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
    wanted = asked(
        model,
        data,
        where,
        call=call,
        run=run,
        rows=rows,
        keep=keep,
        key=key,
        calls=calls,
        loss=loss,
        dtype=dtype,
        batch=batch,
        id=id,
        errors=errors,
        seed=seed,
    )
    size = unit_of(wanted.examples.batch, unit)
    folder = folder_of(to)
    ours = wanted.signature(size)
    batches = wanted.batches(HostCopies(), nan_in)
    rank, world = place_among_processes()
    writes = not wanted.in_step or rank == 0
    if writes:
        folder.create()
        begin(folder, type(wanted.model).__name__, ours)
        forget_damaged(folder)
    with batches.gather.attach(), telling(progress) as tell:
        Work(folder, batches, size, rank, world, tell, wanted.in_step, writes).run()
    if writes:
        folder.sweep(lambda: open_capture(folder).files)
    return open_capture(folder)


def open(folder: str | os.PathLike[str]) -> Capture:
    """The capture in a folder: `open(folder)[path]` is a `Point`. It may still be in the making: what is not done is in
    `missing`.

    Raises StoreError where there is none, or where it is damaged.
    """
    return open_capture(folder_of(folder))


def unit_of(batch: int, unit: int | None) -> int:
    """How many examples a unit has; ArgumentError where these are no whole batches."""
    if unit is None:
        return batch * 8
    expect_whole("unit", unit)
    if unit % batch:
        raise ArgumentError(f"unit must be a multiple of the batch, {batch}, not {unit}")
    return unit


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
    with line_on_terminal("capturing", progress) as line:

        def tell(now: Progress) -> None:
            of = "" if now.units is None else f" of {now.units}"
            waited = f", {now.waited / now.seconds:.0%} of the time waiting for the disk" if now.waited > 0.01 else ""
            line(f"{now.done}{of} units, {now.examples / now.seconds:.0f} examples/s here{waited}")

        yield tell
