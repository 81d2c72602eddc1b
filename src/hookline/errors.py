"""The exceptions that hookline raises.

    HooklineError
    ├── ArgumentError       an argument has a wrong value; a ValueError
    │   ├── ArgumentTypeError    an argument has a wrong type; a TypeError too
    │   └── SelectionError       a pattern, type or module picks nothing in this model
    ├── AttachError         a module cannot be hooked
    ├── EditError           an edit does not fit the call that it should change
    ├── CompareError        two models or runs cannot be compared as requested
    ├── GradientError       a gradient cannot be seen here, or a hook assigned one that does not fit
    ├── RecordError         a result does not hold what was requested
    │   └── ChangedTensorError   a tensor kept by reference was changed in place since
    ├── NonFiniteError      a guard found NaN or Inf in a training step
    ├── AlertError          an alert of a monitor, with then="raise"
    ├── CaptureError        a data set cannot be captured as requested, or a capture lacks what is read
    ├── StoreError          a saved result cannot be written or read back
    └── SourceError         a MODEL or --inputs SPEC cannot be turned into a model or its inputs

Each message says what happened, where, and what to do about it.
"""

from typing import Any


class HooklineError(Exception):
    """The base class: `except HooklineError` catches every error that hookline raises."""


class ArgumentError(HooklineError, ValueError):
    """An argument has a wrong value."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument has a wrong type."""


class SelectionError(ArgumentError, LookupError):
    """A pattern, type or module picks nothing in this model."""


class AttachError(HooklineError):
    """A module cannot be hooked."""


class EditError(HooklineError):
    """An edit does not fit the call that it should change."""


class CompareError(HooklineError):
    """Two models or runs cannot be compared as requested."""


class GradientError(HooklineError):
    """A gradient cannot be seen here, or a hook assigned one that does not fit."""


class RecordError(HooklineError, LookupError):
    """A result does not hold what was requested."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ChangedTensorError(RecordError):
    """A tensor kept by reference was changed in place after it was recorded."""


class NonFiniteError(HooklineError, ArithmeticError):
    """A guard found NaN or Inf in a training step.

    - `path`: the module that produced it, as far as known. In the forward that is the module that returned it, or whose
      own code computed it, or the first to return it where it came from outside. In the backward it is the module that
      received the tensor, or where that is uncertain the one that returned it;
    - `index`: the call of that module, None for the gradient of a parameter, which every call adds to;
    - `phase`: "forward" or "backward";
    - `step`: how many outermost calls, of the model or of modules called directly, the guard saw before this one;
    - `run`: a `Run` of the last calls before it, and of the calls around them.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str = "",
        index: int | None = None,
        phase: str = "forward",
        step: int = 0,
        run: Any = None,
    ) -> None:
        super().__init__(message)
        self.path, self.index, self.phase, self.step, self.run = path, index, phase, step, run


class AlertError(HooklineError):
    """An alert of a monitor that was told to raise."""


class CaptureError(HooklineError):
    """A data set cannot be captured as requested, or a capture lacks what is read from it."""


class StoreError(HooklineError):
    """A saved result cannot be written or read back."""


class SourceError(HooklineError):
    """A MODEL or an --inputs SPEC cannot be turned into a model or its inputs."""
