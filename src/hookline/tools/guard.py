"""guard: find the first value of a training step that is not finite, cheaply enough to leave on."""

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
    """Raise NonFiniteError at the first NaN or Inf of a training step; gives a handle, which is also a `with` block.

    It looks at every tensor that the selected modules give, at its gradient, and at the gradients of their parameters
    when a backward pass has them all: one pass over each, for the smallest and the largest element. The error names the
    module that made it (`error.path`, `error.index`, `error.phase`), how many outermost calls, of the model or of parts
    of it, came before that one (`error.step`), and what came before it, the `last` tensors looked at, as a `Run`
    (`error.run`), which for the first error is also saved to the folder `save`.

    - `then="raise"` raises the error; "log" logs it ("hookline", one record a step at most) and lets the step go on; a
      function is called with it, and the step goes on where that returns.
    - `grads=False` looks at no gradient: with a loss scaler (`torch.amp.GradScaler`) gradients overflow on purpose.

    On the CPU the error comes out of the very module, or of `backward()`. On any other device nothing waits in between:
    the figures are fetched together when the backward pass ends, before the optimizer's step; of a forward without a
    graph when the model is called next, or the guard is removed.

    An output with -inf in it is no error where an argument had -inf too: that is a mask passing through. A module that
    makes such masks is left out: `guard(model, select(model) - "mask")`. Of modules inside `torch.compile` nothing
    is seen but what the compiled one gives.

    Nothing of the model is changed, outputs and gradients are bit for bit what they are without, and no tensor is kept
    alive. Raises SelectionError where `where` (see `select`) picks nothing, and ArgumentError for an unknown `then`.

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
