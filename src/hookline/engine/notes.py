"""The notes (PEP 678) that an error gets on its way out of a hooked call."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from torch import Tensor
from torch.nn import Module

from hookline.engine.call import Call
from hookline.engine.hints import hint
from hookline.engine.hook import Hook
from hookline.messages import dtype_name, few
from hookline.model.tensors import mirror
from hookline.torch_private import StopRecomputing

PREFIX = "hookline: "
LONGEST = 2000
LONGEST_ABOVE = 300
MOST_ABOVE = 12
MOST_TENSORS = 8


def note_failure(error: BaseException, call: Call, hook: Hook | None) -> None:
    """Note on an error the call that raised it: the hook and where it was added, or the module with its inputs and
    parameters, the calls around it, and the inputs it expects where that is certain.

    If an error passes through several hooked calls, only the innermost adds a note.
    """
    if isinstance(error, StopRecomputing):  # not a failure: a checkpoint ends recomputation with it
        return
    with suppress(Exception):  # a note must never hide the error; some errors accept none
        if hook is not None:
            error.add_note(f"{PREFIX}raised by the {hook}, in {_where(call, hook)}")
        elif not any(note.startswith(PREFIX) for note in getattr(error, "__notes__", ())):
            error.add_note("\n  ".join([f"{PREFIX}in {_called(call, LONGEST)}", *_more(call)]))


def _more(call: Call) -> Iterator[str]:
    """The further lines about a module's error."""
    with suppress(Exception):  # a tensor may not be readable
        expected = hint(call.module, call.args, call.kwargs)
        yield from [expected] if expected else []
    own = _own_tensors(call.module)
    if own:
        yield f"it has {own}"
    above = [*call.around()]
    shown = above if len(above) <= MOST_ABOVE else above[: MOST_ABOVE - 2]
    yield from (f"inside {_called(around, LONGEST_ABOVE)}" for around in shown)
    if len(above) > len(shown):
        yield f"... and {len(above) - len(shown) - 1} more"
        yield f"inside {_called(above[-1], LONGEST_ABOVE)}"


def _own_tensors(module: Module) -> str:
    """The module's own parameters and buffers, without those of modules inside it."""
    named = {**module._parameters, **module._buffers}
    told = [f"{name} {describe(tensor)}" for name, tensor in named.items() if tensor is not None]
    return few(told, MOST_TENSORS)


def note_backward_failure(error: BaseException, call: Call) -> None:
    """Note on an error in a backward pass the call whose backward raised it, unless there is a note already."""
    with suppress(Exception):
        if not any(note.startswith(PREFIX) for note in getattr(error, "__notes__", ())):
            above = [f"inside {_where(around)}" for around in call.around()]
            error.add_note("\n  ".join([f"{PREFIX}in the backward of {_where(call)}", *above]))


def note_gradient(error: BaseException, call: Call) -> None:
    """Note on an error about a gradient that a hook assigned the call of that hook."""
    with suppress(Exception):
        error.add_note(f"{PREFIX}assigned by a backward hook in {_where(call)}")


def note_late_failure(error: BaseException, hook: Hook, late: BaseException) -> None:
    """Note on an error that a hook which ran after it failed too."""
    with suppress(Exception):
        error.add_note(f"{PREFIX}after that, {hook}, failed too: {type(late).__name__}: {late}")


def describe(value: Any) -> str:
    """A value in a line: tensors by dtype, shape and device, containers by their parts, anything else by its class.

    >>> import torch
    >>> describe({"ids": torch.zeros(2, 3), "mask": None})
    "{'ids': float32[2, 3] cpu, 'mask': None}"
    """
    try:
        return repr(mirror(value, _Shown))
    except Exception:  # a note must never hide the error
        return f"<{type(value).__name__}>"


class _Shown:
    __slots__ = ("text",)

    def __init__(self, tensor: Tensor) -> None:
        dtype = dtype_name(tensor.dtype)
        self.text = f"{dtype}[{', '.join(map(str, tensor.shape))}] {tensor.device}"

    def __repr__(self) -> str:
        return self.text


def _where(call: Call, hook: Hook | None = None) -> str:
    """A call by its path in the model that the hook was added to, by default the last hook."""
    last: Hook | None = hook or next(iter(getattr(call.names, "hooks", ())[-1:]), None)
    own = last is None or hasattr(call, "method")  # a method's path is its own
    path = call.path if last is None or own else last.paths.path_of(call.module, call.path)
    return f"{path or 'the model'} ({type(call.module).__name__}, call {call.index})"


def _called(call: Call, longest: int) -> str:
    given = [*map(describe, call.args), *(f"{name}={describe(value)}" for name, value in call.kwargs.items())]
    told = ", ".join(given)
    return f"{_where(call)}, called with ({told if len(told) <= longest else told[:longest] + '...'})"
