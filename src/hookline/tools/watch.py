"""watch: record what every module of a model does, without changing a bit of it."""

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
    """A watch of a model: a `with` block that gives the `Run`; or, where no block fits, as over the cells of a
    notebook, what `start()` begins and `stop()` ends."""

    def __init__(self, block: AbstractContextManager[Run]) -> None:
        self._block = block
        self._run: Run | None = None
        self._open = False

    def start(self) -> Run:
        """Begin to record; the run fills as calls are made. Keep the watch, which ends when nothing refers to it.
        RecordError where it was started before.

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
        """End it, and give the run; twice is harmless. RecordError where it was not started."""
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
) -> Watch:
    """A `with` block in which every call of the selected modules is recorded; gives the `Run`, which fills as calls are
    made.

    `keep` is what is kept of each tensor that a module gives (and of its gradient):
    - "shape": shape, dtype, device;
    - "stats": that, and count, min, max, mean, std, absmax, L2 norm, share of zeros, NaN and Inf counts; nothing on a
      device waits for them, they are fetched when first read;
    - "histogram": that, and how many elements lie in each of 24 parts of the range, for the pictures of `run.page`;
    - "tensor": the tensor itself, by reference; reading one that was changed in place since raises ChangedTensorError;
    - "copy": a copy, detached;
    - a function of the tensor, or of the tensor and its `Call` (of a gradient the call has no arguments and no output),
      run without gradients: what it returns.
    `inputs` is the same for the tensors that a module is given; by default "shape". (With keep="tensor" their shapes
    are read when they are first asked for, and until then the run refers to them too.)

    `grads=True` records the gradient of every recorded output that gets one, by tensor hooks, until the block ends.
    `grads="input"` also that of every argument (`call.grad_input`, `call.args[0].grad`), of this call alone. That is
    seen at an alias of the argument, `x[...]`, as in `on`: it is exact, but gradients that meet in one tensor may
    be summed in another order, so that they can differ from those without a watch in the last bit. Under autocast
    the sum may be made in the narrower dtype: a leaf's gradient can then differ by a rounding of bfloat16.

    `methods` names methods of the selected modules, as `["encode", "generate"]`: their calls are recorded too, under
    the path "module.encode()". With "forward" so are calls of `module.forward(...)` by its name; the one that a call of
    the module makes is not recorded twice.

    Watching changes nothing: outputs, gradients, random state, buffers and aliasing are bit for bit what they are
    without it, and after the block the model is what it was. With "shape", "stats" and "histogram" no tensor is kept
    alive. An exception leaves the record of everything up to it. (One thing can tell: where the model is compiled, has
    a `__call__` of its own, or `methods` are given, `type(module) is X` is False inside the block, and
    `type(module) == X` True.)

    Where no block fits, as in a notebook, `start()` gives the run and `stop()` ends it.

    Raises SelectionError where `where` (see `select`) picks nothing, or nothing that has one of the methods, and
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
    return Watch(recording(select(model, where), keep=keep, inputs=inputs, grads=grads, methods=methods))
