"""watch: record what every module in a model does, without changing a bit of it."""

import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Literal

from torch.nn import Module

from hookline.errors import RecordError
from hookline.model.select import Where, select
from hookline.record.keep import Keep
from hookline.record.record import Run
from hookline.record.recorder import recording


class Watch(AbstractContextManager[Run]):
    """A watch on a model: a `with` block that gives the `Run`. Where no block fits, as in the cells of a notebook,
    `start()` begins it and `stop()` ends it."""

    def __init__(self, block: AbstractContextManager[Run]) -> None:
        self._block = block
        self._run: Run | None = None
        self._open = False

    def start(self) -> Run:
        """Begin to record; the run fills as calls are made. Keep the watch: it ends when nothing refers to it.
        Raises RecordError if it was started before.

        >>> import torch, hookline
        >>> model = torch.nn.ReLU()
        >>> watch = hookline.watch(model)
        >>> run = watch.start()
        >>> _ = model(torch.ones(2))
        >>> watch.stop() is run
        True
        >>> len(run)
        1
        """
        if self._run is not None:
            raise RecordError("this watch was started before; call hookline.watch(...) for another run")
        self._run = self._block.__enter__()
        self._open = True
        return self._run

    def stop(self) -> Run:
        """End the watch and return the run; twice is harmless. Raises RecordError if it was not started."""
        if self._run is None:
            raise RecordError("this watch was not started: call start() on it, or use it as a with block")
        self.__exit__(None, None, None)
        return self._run

    def __del__(self) -> None:
        if self._open and not sys.is_finalizing():
            self.stop()
            warnings.warn(
                "a watch that was started ended before stop(), since nothing refers to it: keep it, as in "
                "watch = hookline.watch(model); run = watch.start()",
                stacklevel=2,
            )

    def __enter__(self) -> Run:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._open = False
            self._block.__exit__(kind, error, trace)


def watch(
    model: Module,
    where: Where = "**",
    *,
    keep: Keep = "stats",
    inputs: Keep | None = None,
    grads: bool | Literal["input"] = False,
    methods: Sequence[str] = (),
    last: int | None = None,
) -> Watch:
    """Record every call of the selected modules inside a `with` block; gives a `Run`, which fills as calls are made.

    `keep` is what is kept of each output (and of its gradient):
    - "shape": shape, dtype, device;
    - "stats": that, and count, min, max, mean, std, absmax, L2 norm, share of zeros, NaN and Inf counts; the device
      does not wait for them, they are fetched when first read;
    - "histogram": that, and how many elements lie in each of 24 bins over the range, for the pictures of `run.page`;
    - "tensor": the tensor itself, by reference; reading one that was changed in place since raises ChangedTensorError;
    - "copy": a detached copy;
    - a function of the tensor, or of the tensor and its `Call` (which has no arguments and no output for a gradient),
      run without gradients: what it returns.
    `inputs` is the same for the inputs; by default "shape". (With keep="tensor" the shapes of inputs are read when
    first asked for, and until then the run refers to the inputs too.)

    `grads=True` records the gradient of every recorded output that gets one, by tensor hooks, until the block ends.
    `grads="input"` also records the gradient of every argument (`call.grad_input`, `call.args[0].grad`), of this call
    alone. It is read at an alias of the argument, `x[...]`, as in `on`: it is exact, but gradients that meet in one
    tensor may be summed in another order, so they can differ in the last bit from those without a watch. Under autocast
    the sum may be made in the narrower dtype: the gradient of a leaf can then differ by a rounding of bfloat16.

    `methods` names methods of the selected modules, as `["encode", "generate"]`: their calls are recorded too, under
    the path "module.encode()". With "forward" direct calls of `module.forward(...)` are recorded; the forward that a
    call of the module runs is not recorded twice.

    `last` keeps that many outermost calls, those of the model in a training loop, with the calls inside them; earlier
    ones are dropped when another begins. Without it a run grows with every call, and a watch that has passed 100,000
    calls or 100 MB warns once.

    Watching changes nothing: outputs, gradients, random state, buffers and aliasing are bit for bit what they are
    without it, and after the block the model is restored. With "shape", "stats" and "histogram" no tensor is kept
    alive. If the model raises, the run has everything up to the error. (One thing shows: if a module is compiled, has a
    `__call__` of its own, or `methods` are given, `type(module) is X` is False inside the block; `type(module) == X` is
    True.)

    Where no block fits, as in a notebook, `start()` returns the run and `stop()` ends it.

    Raises SelectionError if `where` (see `select`) picks nothing, or nothing that has one of the methods, and
    ArgumentError for an unknown `keep` or `grads`.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> with hookline.watch(model, grads=True) as run:
    ...     model(torch.ones(3, 4)).sum().backward()
    >>> [(call.path, call.type, [*call.output.shape]) for call in run]
    [('', 'Sequential', [3, 2]), ('0', 'Linear', [3, 8]), ('1', 'ReLU', [3, 8]), ('2', 'Linear', [3, 2])]
    >>> run["2"].output.grad.norm
    2.449489...
    """
    return Watch(recording(select(model, where), keep=keep, inputs=inputs, grads=grads, methods=methods, last=last))
