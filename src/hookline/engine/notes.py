"""The notes (PEP 678) that an error gets on its way out of a hooked call."""

from contextlib import suppress
from typing import Any

from torch import Tensor

from hookline.engine.call import Call
from hookline.engine.hook import Hook
from hookline.model.tensors import mirror

PREFIX = "hookline: "
LONGEST = 2000


def note_failure(error: BaseException, call: Call, hook: Hook | None) -> None:
    """Say on an error in which call it was raised: by a step, added where; or by the module, given what.

    Of the calls that a module's error goes through only the innermost hooked one says so.
    """
    with suppress(Exception):  # a note never hides the error that it explains; some errors take none
        if hook is not None:
            error.add_note(f"{PREFIX}raised by the {hook}, in {_where(call)}")
        elif not any(note.startswith(PREFIX) for note in getattr(error, "__notes__", ())):
            given = [*map(describe, call.args), *(f"{name}={describe(value)}" for name, value in call.kwargs.items())]
            error.add_note(f"{PREFIX}in {_where(call)}, called with ({', '.join(given)[:LONGEST]})")


def note_gradient(error: BaseException, call: Call) -> None:
    """Say on an error about a gradient that a step assigned in which call that was."""
    with suppress(Exception):
        error.add_note(f"{PREFIX}assigned by a backward step in {_where(call)}")


def note_late_failure(error: BaseException, hook: Hook, late: BaseException) -> None:
    """Say on an error that a step which ran after it failed too."""
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
    except Exception:  # a note never hides the error that it explains
        return f"<{type(value).__name__}>"


class _Shown:
    __slots__ = ("text",)

    def __init__(self, tensor: Tensor) -> None:
        dtype = str(tensor.dtype).removeprefix("torch.")
        self.text = f"{dtype}[{', '.join(map(str, tensor.shape))}] {tensor.device}"

    def __repr__(self) -> str:
        return self.text


def _where(call: Call) -> str:
    path = call.path or "the model"
    return f"{path} ({type(call.module).__name__}, call {call.index})"
