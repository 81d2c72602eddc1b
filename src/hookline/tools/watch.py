"""watch: record what every module of a model does, and change nothing by looking."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

from torch.nn import Module

from hookline.engine.attach import attach
from hookline.engine.hook import Hook
from hookline.errors import RecordError
from hookline.model.select import Selection, Where, select
from hookline.record.keep import Keep, keeper
from hookline.record.measure import Pending
from hookline.record.record import Run
from hookline.record.recorder import Recorder


def watch(
    model: Module,
    where: Where = "**",
    *,
    keep: Keep = "stats",
    inputs: Keep | None = None,
    grads: bool | Literal["input"] = False,
) -> AbstractContextManager[Run]:
    """A `with` block in which every call of the selected modules is recorded; gives the `Run`, which fills as calls are
    made.

    `keep` is what is kept of each tensor that a module gives (and of its gradient):
    - "shape": shape, dtype, device;
    - "stats": that, and count, min, max, mean, std, absmax, L2 norm, share of zeros, NaN and Inf counts; nothing on a
      device waits for them, they are fetched when first read;
    - "tensor": the tensor itself, by reference; reading one that was changed in place since raises ChangedTensorError;
    - "copy": a copy, detached;
    - a function of the tensor, run without gradients: what it returns.
    `inputs` is the same for the tensors that a module is given; by default "shape". (With keep="tensor" their shapes
    are read when they are first asked for, and until then the run refers to them too.)

    `grads=True` records the gradient of every recorded output that gets one, by tensor hooks, until the block ends.
    `grads="input"` also that of every argument (`call.grad_input`, `call.args[0].grad`), of this call alone. That is
    seen at an alias of the argument, `x[...]`, as in `on`: it is exact, but gradients that meet in one tensor may
    be summed in another order, so that they can differ from those without a watch in the last bit.

    Watching changes nothing: outputs, gradients, random state, buffers and aliasing are bit for bit what they are
    without it, and after the block the model is what it was. With "shape" and "stats" no tensor is kept alive. An
    exception leaves the record of everything up to it. (One thing can tell: inside the block `type(module) is X` is
    False for a watched module; `module.__class__` and `isinstance` say what they did.)

    Raises SelectionError where `where` (see `select`) picks nothing, and RecordError for an unknown `keep` or `grads`.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> with hookline.watch(model, grads=True) as run:
    ...     model(torch.ones(3, 4)).sum().backward()
    >>> [(call.path, call.type, [*call.output.shape]) for call in run]
    [('', 'Sequential', [3, 2]), ('0', 'Linear', [3, 8]), ('1', 'ReLU', [3, 8]), ('2', 'Linear', [3, 2])]
    >>> run["2"].output.grad.norm
    2.449489...
    """
    selection = select(model, where)
    pending = Pending()
    output = keeper(keep, pending)
    if grads not in (True, False, "input"):
        raise RecordError(f"grads={grads!r} is not known; it is True, False or 'input'")
    given = None if inputs is None and keep == "tensor" and grads != "input" else keeper(inputs or "shape", pending)
    run = Run(
        model=type(model).__name__,
        modules={path: type(module).__name__ for path, module in selection},
        aliases=selection.aliases,
        settings={"keep": _name(keep), "inputs": _name(inputs or "shape"), "grads": grads},
    )
    recorder = Recorder(
        run,
        selection,
        output=output,
        inputs=given,
        gradient=output if grads else None,
        input_gradients=grads == "input",
    )
    return _watching(selection, recorder, recorder.hooks())


@contextmanager
def _watching(selection: Selection, recorder: Recorder, hooks: tuple[Hook, ...]) -> Iterator[Run]:
    handle = attach(selection, hooks)
    try:
        yield recorder.run
    finally:
        handle.remove()
        recorder.close()


def _name(keep: Any) -> str:
    return keep if isinstance(keep, str) else getattr(keep, "__qualname__", type(keep).__name__)
