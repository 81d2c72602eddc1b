"""guard: raise at the first NaN or Inf of a training step, cheaply enough to leave on."""

import os

from torch.nn import Module

from hookline.engine.hook import Handle
from hookline.errors import ArgumentError
from hookline.guarding.guard import Then, guarding
from hookline.model.select import Where, select


def guard(
    model: Module,
    where: Where = "**",
    *,
    then: Then = "raise",
    grads: bool = True,
    last: int = 16,
    save: str | os.PathLike[str] | None = None,
) -> Handle:
    """Raise NonFiniteError at the first NaN or Inf of a training step, and name the module it came from.

    Returns a handle, which is also a `with` block. The guard reads every output of the selected modules, its gradient,
    and, once a backward pass has them all, the gradients of their parameters: one pass over each tensor, for its
    smallest and largest element.

    The error has the module (`error.path`, `error.index`, `error.phase`), the number of outermost calls, of the model
    or of parts of it, before this one (`error.step`), and the `last` tensors read before it, as a `Run` (`error.run`).

    - `then`: "raise" raises the error; "log" logs it (to "hookline", at most one record a step) and continues; a
      function is called with the error, and the training step continues if it returns.
    - `grads`: False reads no gradient: with a loss scaler (`torch.amp.GradScaler`) gradients overflow on purpose.
    - `save`: a folder to which the run of the first error is saved.

    On the CPU the error is raised by the module itself, or by `backward()`. On any other device nothing waits in
    between: the figures are fetched together when the backward pass ends, before the optimizer step; for a forward
    without a graph when the model is called next or the guard is removed.

    An output with -inf is not an error if an argument had -inf too: that is a mask passing through. Leave out a module
    that makes such masks: `guard(model, select(model) - "mask")`. Inside `torch.compile` only the outputs of the
    compiled module are read.

    The model is not changed: outputs and gradients are bit for bit what they are without a guard, and no tensor is kept
    alive. Raises SelectionError if `where` (see `select`) picks nothing, and ArgumentError for an unknown `then`.

    >>> import torch, hookline
    >>> class Root(torch.nn.Module):
    ...     def forward(self, x):
    ...         return x.sqrt()
    >>> model = torch.nn.Sequential(torch.nn.Identity(), Root())
    >>> with hookline.guard(model):
    ...     model(torch.tensor([4.0, -1.0]))
    Traceback (most recent call last):
    hookline.errors.NonFiniteError: NaN in the output of 1 (Root, call 0), in the forward of step 0: ...
    """
    if then not in ("raise", "log") and not callable(then):
        raise ArgumentError(f"then must be 'raise', 'log' or a function of the error, not {then!r}")
    if not isinstance(last, int) or last < 0:
        raise ArgumentError(f"last must be 0 or more, how many tensors before the error are listed, not {last!r}")
    return guarding(select(model, where), then=then, grads=grads, last=last, save=save)
