"""explain: an error inside a model says in which module it happened, on what, and on the way through which calls."""

from torch.nn import Module

from hookline.engine.attach import on
from hookline.engine.call import Call
from hookline.engine.hook import Handle
from hookline.model.select import Where


def explain(model: Module, where: Where = "**") -> Handle:
    """Have errors of the selected modules carry a note; gives a handle, which is also a `with` block.

    The note (PEP 678; a traceback prints it below the error) says the path and class of the innermost of these modules
    that the error came out of, which call of it, the shapes of its arguments and of its own parameters and buffers, and
    the calls around it with their arguments. Of layers of `torch.nn` it says what they take and were given instead,
    where that is certain: a wrong width, channels in the wrong place, another dtype or device.

    A step that does nothing is put on each module: that is all it costs while nothing fails. Modules that are watched,
    guarded or have any step of `hookline.on` carry such notes without it. The note is text: it keeps no tensor alive.

    Raises SelectionError where `where` (see `select`) picks nothing.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    >>> try:
    ...     with hookline.explain(model):
    ...         model(torch.ones(3, 4))
    ... except RuntimeError as error:
    ...     print(error.__notes__[0])
    hookline: in 2 (Linear, call 0), called with (float32[3, 8] cpu)
      Linear(in_features=6) takes [..., 6] and was given [3, 8].
      it has weight float32[2, 6] cpu, bias float32[2] cpu
      inside the model (Sequential, call 0), called with (float32[3, 4] cpu)
    """
    return on(model, where, before=_nothing)


def _nothing(call: Call) -> None:
    """The step that makes a call one of ours."""
