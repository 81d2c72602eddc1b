"""explain: have errors inside a model name the module, its inputs and the calls around it."""

from torch.nn import Module

from hookline.engine.attach import on
from hookline.engine.call import Call
from hookline.engine.hook import Handle
from hookline.model.select import Where


def explain(model: Module, where: Where = "**") -> Handle:
    """Add a note to every error raised inside the selected modules: which module, on which inputs, in which calls.

    Returns a handle, which is also a `with` block. The note (PEP 678; a traceback prints it below the error) names the
    path and class of the innermost selected module that raised, the index of the call, the shapes of its arguments and
    of its own parameters and buffers, and the calls around it with their arguments. For layers of `torch.nn` it says
    which input they expect and which they received, where that is certain: a wrong width, channels in the wrong place,
    another dtype or device.

    Each module gets a hook that does nothing: that is the whole cost while nothing fails. Modules that are watched or
    guarded, or have a hook of `hookline.on`, add such notes anyway. The note is text: it keeps no tensor alive.

    Raises SelectionError if `where` (see `select`) picks nothing.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    >>> try:
    ...     with hookline.explain(model):
    ...         model(torch.ones(3, 4))
    ... except RuntimeError as error:
    ...     print(error.__notes__[0])
    hookline: in 2 (Linear, call 0), called with (float32[3, 8] cpu)
      Linear(in_features=6) expects [..., 6], got [3, 8].
      it has weight float32[2, 6] cpu, bias float32[2] cpu
      inside the model (Sequential, call 0), called with (float32[3, 4] cpu)
    """
    return on(model, where, before=_nothing)


def _nothing(call: Call) -> None:
    """Do nothing: a module with a hook runs through hookline, which adds the note."""
