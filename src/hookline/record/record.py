"""Recorded data: TensorInfo, CallRecord and Run, as plain values."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hookline.errors import ChangedTensorError, RecordError
from hookline.messages import counted, dtype_name, milliseconds
from hookline.model.select import glob_to_regex
from hookline.model.sharded import Part
from hookline.model.tensors import leaves, mirror
from hookline.nested import Nested
from hookline.record.statistics import BINS, Pending, Stats, Waiting, measure
from hookline.result import Result
from hookline.store.folder import write


class TensorInfo:
    """The record of one tensor.

    - `shape`, `dtype`, `device`, `requires_grad`: always there;
    - `stats`: the statistics if kept, also by name (`mean`, `std`, `min`, `max`, `absmax`, `norm`, `zeros`, `nan`,
      `inf`);
    - `value`: the tensor itself, or the result of the caller's function, if kept;
    - `grad`: the record of its gradient, if gradients were watched and one arrived;
    - `part`: for a distributed tensor (a DTensor) the part in this process, with its `placement` and `local_shape`;
      `shape` is then of the whole tensor, statistics and value are of the part;
    - `ranks`: in a gathered run the record of each rank, by rank.
    """

    __slots__ = (
        "_grad",
        "_part",
        "_ranks",
        "_stats",
        "_value",
        "_version",
        "device",
        "dtype",
        "requires_grad",
        "shape",
    )

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool
    _stats: Stats | Waiting | None
    _value: Any
    _version: int | None
    _grad: "Slot | None"
    _part: Part | None
    _ranks: "tuple[TensorInfo | None, ...] | None"

    @property
    def stats(self) -> Stats | None:
        """The statistics, None if not kept. The first access waits for the device of the tensor."""
        if isinstance(self._stats, Waiting):
            self._stats = self._stats.fetch()
        return self._stats

    def measured(self) -> Stats | None:
        """The statistics, which for a kept tensor are measured now, with a histogram.

        None if nothing was kept, or if the kept tensor has changed since.
        """
        if self.stats is not None or not isinstance(self._value, Tensor):
            return self.stats
        try:
            found = measure(self.value, Pending(), bins=BINS)
        except ChangedTensorError:
            return None
        return found.fetch() if isinstance(found, Waiting) else found

    @property
    def value(self) -> Any:
        """The kept tensor, a copy of it, or the result of the caller's function; None if nothing was kept.

        Raises ChangedTensorError where the tensor was kept by reference and has been changed in place since.
        """
        if self._version is not None and self._value._version != self._version:
            raise ChangedTensorError(
                f"this {self} was changed in place after it was recorded, so its value then is lost; "
                "watch with keep='copy'"
            )
        return self._value

    @property
    def grad(self) -> "TensorInfo | None":
        """The record of this tensor's gradient; None if gradients were not watched, or none arrived."""
        return None if self._grad is None else self._grad.info

    @property
    def part(self) -> Part | None:
        """The part of a distributed tensor in this process; None for a plain tensor."""
        return self._part

    @property
    def placement(self) -> tuple[str, ...] | None:
        """The placement of a distributed tensor along each dimension of its mesh, such as "Shard(0)"; None for a plain
        tensor."""
        return None if self._part is None else self._part.placement

    @property
    def local_shape(self) -> tuple[int, ...]:
        """The shape of the part in this process, which for a plain tensor is its shape."""
        return self.shape if self._part is None else self._part.shape

    @property
    def ranks(self) -> "tuple[TensorInfo | None, ...]":
        """In a gathered run the record of each rank, None for a rank without the tensor; otherwise empty."""
        return self._ranks or ()

    @property
    def dtype_name(self) -> str:
        """The dtype without `torch.`."""
        return dtype_name(self.dtype)

    @property
    def _figures(self) -> Stats:
        """The statistics; RecordError if none were kept."""
        stats = self.stats
        if stats is None:
            raise RecordError(f"no statistics were kept of this {self}; watch with keep='stats'")
        return stats

    @property
    def count(self) -> int:
        """The number of elements; of a sparse tensor, those that it stores."""
        return self._figures.count

    @property
    def min(self) -> float:
        """The smallest element. Like `max`, `mean` and `std` it is NaN if an element is, and of magnitudes if elements
        are complex."""
        return self._figures.min

    @property
    def max(self) -> float:
        """The largest element."""
        return self._figures.max

    @property
    def mean(self) -> float:
        """The mean."""
        return self._figures.mean

    @property
    def std(self) -> float:
        """The standard deviation, of the population."""
        return self._figures.std

    @property
    def absmax(self) -> float:
        """The largest magnitude."""
        return self._figures.absmax

    @property
    def norm(self) -> float:
        """The L2 norm."""
        return self._figures.norm

    @property
    def zeros(self) -> float:
        """The share of elements that are 0, from 0 to 1."""
        return self._figures.zeros

    @property
    def nan(self) -> int:
        """How many elements are NaN."""
        return self._figures.nan

    @property
    def inf(self) -> int:
        """How many elements are infinite."""
        return self._figures.inf

    if not TYPE_CHECKING:  # a type checker sees the declared attributes only, so that it reports a misspelt one

        def __getattr__(self, name: str) -> Any:
            """Attributes without a value in their slot: None if nothing was kept."""
            if name in NOT_KEPT:
                return None
            if name in ("dtype", "device"):
                return getattr(self._value, name)  # of a tensor kept by reference they are read on demand
            raise AttributeError(
                f"TensorInfo has no {name!r}; it has shape, dtype, device, stats, {', '.join(FIGURES)}, value, grad"
            )

    def __repr__(self) -> str:
        shape = ", ".join(map(str, self.shape))
        stats = self.stats
        figures = "" if stats is None else f", mean={stats.mean:.4g}, std={stats.std:.4g}, absmax={stats.absmax:.4g}"
        lies = "" if self.placement is None else f" {' '.join(self.placement)}"
        return f"TensorInfo({self.dtype_name}[{shape}] {self.device}{lies}{figures})"

    def __str__(self) -> str:
        return f"{self.dtype_name}[{', '.join(map(str, self.shape))}] tensor"


NOT_KEPT = ("_stats", "_value", "_version", "_grad", "_part", "_ranks")
MEASURED = ("min", "max", "mean", "std", "absmax", "norm", "zeros", "nan", "inf")
FIGURES = ("count", *MEASURED)


class Slot:
    """The place that a tensor's gradient hook writes to.

    It refers to no tensor of the forward: such a cycle would keep the graph alive.
    """

    __slots__ = ("__weakref__", "info")

    def __init__(self, info: TensorInfo | None = None) -> None:
        self.info = info


if TYPE_CHECKING:

    class Recorded(TensorInfo):
        """The type of a recorded output for a type checker: a TensorInfo, or a container of these, which only the code
        that reads it knows. No object is of this class."""

        def __getitem__(self, key: str | int) -> "Recorded": ...
        def __iter__(self) -> Iterator["Recorded"]: ...
        def __len__(self) -> int: ...
        def __eq__(self, other: object) -> bool: ...


class CallRecord(Nested):
    """The record of one call of one module.

    - `path`: the path of the module; for a method called by its name "path.method()";
    - `index`: which call of the module in this run, from 0;
    - `type`: the name of its class;
    - `parent`: the record of the call around it, None for an outermost call;
    - `number`: its place in the run, in the order in which calls began;
    - `args`, `kwargs`, `output`: the arguments and the output, in their own nesting, with a TensorInfo for each tensor;
    - `grad_output`: the nesting of the output with a TensorInfo for each gradient that arrived, else None;
    - `grad_input`, `grad_kwargs`: the same for `args` and `kwargs`, with `grads="input"`;
    - `began`: seconds from the start of the run;
    - `seconds`: duration of the call on the host's clock;
    - `thread`: the id of the thread;
    - `training`: whether the module was in train mode;
    - `error`: "Class: message" if the call raised, else None;
    - `recompute`: whether a backward pass made the call, to recompute activations under activation checkpointing;
    - `ranks`: in a gathered run the record of each rank, None for a rank without the call; otherwise empty.
    """

    __slots__ = (
        "__weakref__",
        "_given",
        "args",
        "began",
        "error",
        "index",
        "kwargs",
        "number",
        "output",
        "parent",
        "path",
        "ranks",
        "recompute",
        "seconds",
        "thread",
        "training",
        "type",
    )

    path: str
    index: int
    type: str
    number: int
    parent: "CallRecord | None"
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: "Recorded"
    began: float
    seconds: float
    thread: int
    training: bool
    error: str | None
    recompute: bool
    ranks: "tuple[CallRecord | None, ...]"

    _given: tuple[Any, Any, Callable[[Tensor], TensorInfo]]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The arguments of a call that was recorded by reference, described on first access."""
            if name in USUAL:
                return USUAL[name]
            if name not in ("args", "kwargs"):
                raise AttributeError(f"CallRecord has no {name!r}")
            args, kwargs, describe = self._given
            self.args, self.kwargs = mirror(tuple(args), describe), mirror(dict(kwargs), describe)
            del self._given
            return getattr(self, name)

    @property
    def grad_output(self) -> Any:
        """The nesting of the output, with a TensorInfo for each gradient that arrived and None for the others."""
        return mirror(self.output, lambda info: info.grad, kind=TensorInfo)

    @property
    def grad_input(self) -> Any:
        """The same for the positional arguments."""
        return mirror(self.args, lambda info: info.grad, kind=TensorInfo)

    @property
    def grad_kwargs(self) -> Any:
        """The same for the keyword arguments."""
        return mirror(self.kwargs, lambda info: info.grad, kind=TensorInfo)

    @property
    def method(self) -> str | None:
        """The name of the method that was called; None if the module itself was called."""
        return self.path.removesuffix("()").rpartition(".")[2] if self.path.endswith("()") else None

    @property
    def depth(self) -> int:
        """The number of recorded calls around this one."""
        return sum(1 for _ in self.around())

    @property
    def inputs(self) -> list[TensorInfo]:
        """Every input tensor, positional arguments first, nested ones included."""
        return [info for _, info in infos((self.args, self.kwargs))]

    @property
    def outputs(self) -> list[TensorInfo]:
        """Every output tensor, nested ones included."""
        return [info for _, info in infos(self.output)]

    @property
    def named_inputs(self) -> dict[str, TensorInfo]:
        """The same as `inputs`, by position or name; a nested tensor by the keys that lead to it, joined by dots."""
        return _named(self.args) | _named(self.kwargs)

    @property
    def named_outputs(self) -> dict[str, TensorInfo]:
        """The same as `outputs`, by the keys that lead to each, joined by dots; "" for the output itself."""
        return _named(self.output)

    def __repr__(self) -> str:
        state = f"raised {self.error}" if self.error else f"-> {self.output!r}"
        return f"<{self.path or '(the model)'} #{self.index}: {self.type} {state}>"


USUAL = {"recompute": False, "ranks": ()}  # values of slots that were not set


COLUMNS = (
    *("path", "index", "type", "depth", "parent", "began", "seconds"),
    *(
        "input_shapes",
        "output_shape",
        "dtype",
        "device",
        *MEASURED,
        "grad_norm",
        "grad_input_norm",
        "error",
        "recompute",
    ),
)


def row(call: CallRecord) -> dict[str, Any]:
    """One call as a flat row, a value for each of COLUMNS."""
    outputs = call.outputs
    first = outputs[0] if outputs else None
    stats = first.stats if first else None
    grad = first.grad.stats if first and first.grad else None
    back = next((info.grad for info in call.inputs if info.grad), None)
    parent = call.parent
    return {
        "path": call.path,
        "index": call.index,
        "type": call.type,
        "depth": call.depth,
        "parent": parent.number if parent else None,
        "began": call.began,
        "seconds": call.seconds,
        "input_shapes": [info.shape for info in call.inputs],
        "output_shape": first.shape if first else None,
        "dtype": first.dtype_name if first else None,
        "device": str(first.device) if first else None,
        **{name: getattr(stats, name) if stats else None for name in MEASURED},
        "grad_norm": grad.norm if grad else None,
        "grad_input_norm": back.stats.norm if back and back.stats else None,
        "error": call.error,
        "recompute": call.recompute,
    }


class Run(Result[CallRecord]):
    """The recorded calls of the watched modules, in the order in which they began, as a tree.

    `run["encoder.layer.3"]` is the first call of a module, `run["encoder.layer.3", 2]` its third,
    `run["encoder.layer.3", -1]` its last, and `run[0]` the first call of all. A run is true if it has a call. It prints
    as a table, and shows as its page in a notebook.

    - `model`: the class of the model;
    - `modules`: the class of each watched module, by path;
    - `aliases`: the path in `modules` for each other path of a shared module;
    - `settings`: how it was watched;
    - `calls`: every CallRecord;
    - `rank`, `world_size`: the process it is from and how many there were, None without torch.distributed;
    - `ranks`: in a gathered run the runs of all ranks.
    """

    noun = "run"
    entry = "call"
    columns = COLUMNS

    def __init__(
        self,
        *,
        model: str,
        modules: Mapping[str, str],
        aliases: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        self.model = model
        self.rank, self.world_size = rank, world_size
        self.ranks: tuple[Run, ...] = ()
        self.modules = dict(modules)
        self.aliases = dict(aliases or {})
        self.settings = dict(settings or {})
        self.calls: list[CallRecord] = []
        self._by_path: dict[str, list[CallRecord]] = {}
        self._sorted = 0

    def _entries(self) -> Sequence[CallRecord]:
        return self.calls

    def _of(self, path: str) -> Mapping[int, CallRecord]:
        return dict(enumerate(self._calls_by_path().get(self.aliases.get(path, path), ())))

    def _paths(self) -> Iterable[str]:
        return (*self.modules, *self.aliases)

    def _why_empty(self, path: str) -> str | None:
        return "was watched but never called" if self.aliases.get(path, path) in self.modules else None

    def _row(self, entry: CallRecord, /) -> Mapping[str, Any]:
        return row(entry)

    def calls_of(self, path: str) -> list[CallRecord]:
        """Every call of one module, in order; RecordError if it was not watched or not called."""
        return [*self._known(path).values()]

    def find(self, pattern: str) -> list[CallRecord]:
        """Every call whose path matches a glob (as in `select`), in order; empty if none does."""
        expression = glob_to_regex(pattern)
        matched = {path for path in self.modules if expression.fullmatch(path)}
        matched |= {path for alias, path in self.aliases.items() if expression.fullmatch(alias)}
        return [call for call in self.calls if call.path in matched]

    def children(self, call: CallRecord | None = None) -> list[CallRecord]:
        """The calls directly inside `call`; without one, the outermost calls."""
        return [other for other in self.calls if other.parent is call]

    def _calls_by_path(self) -> dict[str, list[CallRecord]]:
        for call in self.calls[self._sorted :]:
            self._by_path.setdefault(call.path, []).append(call)
            self._sorted += 1
        return self._by_path

    @property
    def never_called(self) -> list[str]:
        """The watched paths without a recorded call. A watched `forward` counts as called if its module was."""
        called = self._calls_by_path()
        return [path for path in self.modules if path not in called and _of_forward(path) not in called]

    @property
    def seconds(self) -> float:
        """The duration of all outermost calls together, in seconds on the host's clock."""
        return math.fsum(call.seconds for call in self.calls if call.parent is None)

    @property
    def summary(self) -> str:
        """The number of calls and modules and their duration, in a line."""
        modules = len(self.modules) - len(self.never_called)
        line = f"{counted(len(self.calls), 'call')} of {counted(modules, 'module')}, {milliseconds(self.seconds)} ms"
        return f"{self.model}: {line}{self._whose()}"

    def _whose(self) -> str:
        """The rank and the world size as a text for `summary`."""
        if self.world_size is None:
            return ""
        return f", rank {self.rank} of {self.world_size}" if self.rank is not None else f", {self.world_size} ranks"

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the run to a folder, whole or not at all, in the format of docs/format.md.

        A run saved there before is replaced.

        Raises StoreError where the folder holds something else, or a kept value cannot be written, and
        ChangedTensorError where a tensor kept by reference was changed in place since.
        """
        from hookline.record.run_document import to_document

        write(folder, *to_document(self))

    def to_dict(self) -> dict[str, Any]:
        """The run as plain data for JSON, in the format of docs/format.md.

        Numbers that are not finite are text. A kept tensor is named, not included.
        """
        from hookline.record.run_document import to_document

        return to_document(self)[0]

    def gather(self) -> "Run | None":
        """Merge the runs of all ranks into one on rank 0; None on the others. Every rank must call it.

        Calls are matched by path and index. `call.ranks[1]` and `info.ranks[1]` are the records of rank 1.

        - A distributed tensor has the statistics of the whole: count, min, max, mean, std, norm, zeros, nan and inf are
          reduced from its parts, each part once. A histogram needs parts with the same bins. A Partial tensor has no
          statistics.
        - A plain tensor with equal statistics, or none, on all ranks is recorded once. If they differ, as with the
          batches of data parallel training, its placement is "PerRank()" and the statistics are of the elements of all
          ranks.

        The ranks send the document of `save` and the kept tensors, never pickled objects. Raises RecordError if
        torch.distributed is not initialized, or if a rank recorded a value that cannot be saved.
        """
        from hookline.record.processes import gathered

        return gathered(self)

    def page(self, file: str | os.PathLike[str]) -> Path:
        """Write the run as a page and return its path: one HTML file with the tree of calls, their figures and two
        pictures, which loads nothing else.

        It has histograms if `keep` was "histogram", "tensor" or "copy". Raises StoreError where it cannot be written.
        """
        return self._write("page", file)

    def perfetto(self, file: str | os.PathLike[str]) -> Path:
        """Write the calls as a trace for ui.perfetto.dev and chrome://tracing, and return its path.

        Raises StoreError where it cannot be written.
        """
        return self._write("perfetto", file)


def infos(data: Any) -> Iterator[tuple[tuple[str | int, ...], TensorInfo]]:
    """Every TensorInfo in recorded data with the keys that lead to it."""
    return leaves(data, kind=TensorInfo)


def _named(data: Any) -> dict[str, TensorInfo]:
    return {".".join(map(str, keys)): info for keys, info in infos(data)}


def _of_forward(path: str) -> str | None:
    """The path of the module for the path of its `forward`."""
    return path.removesuffix("forward()").removesuffix(".") if path.endswith("forward()") else None
