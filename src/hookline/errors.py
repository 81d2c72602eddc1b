"""Every exception that hookline raises on purpose.

    HooklineError
    ├── ArgumentError       a function was given an argument that it cannot take; a ValueError
    │   ├── ArgumentTypeError    one of a wrong type; a TypeError too
    │   └── SelectionError       a pattern, type or module picks nothing in this model
    ├── AttachError         a module cannot be hooked
    ├── EditError           an edit does not fit the call that it is to change
    ├── CompareError        two models or runs cannot be compared as was asked
    ├── GradientError       a gradient cannot be seen here, or one that a hook assigned does not fit
    ├── RecordError         a run was asked for something that it does not hold
    │   └── ChangedTensorError   a tensor kept by reference was changed in place since
    ├── NonFiniteError      a guard found NaN or Inf in a training step
    ├── StoreError          a saved run cannot be written, or read back
    └── SourceError         a MODEL or --inputs SPEC cannot be turned into a model or its inputs

Each says what happened, where, and what to do about it.
"""

from typing import Any


class HooklineError(Exception):
    """The root: `except HooklineError` catches whatever hookline itself complains about."""


class ArgumentError(HooklineError, ValueError):
    """A function was given an argument that it cannot take."""


class ArgumentTypeError(ArgumentError, TypeError):
    """A function was given an argument of a wrong type."""


class SelectionError(ArgumentError, LookupError):
    """A pattern, type or module picks nothing in this model."""


class AttachError(HooklineError):
    """A module cannot be hooked."""


class EditError(HooklineError):
    """An edit does not fit the call that it is to change."""


class CompareError(HooklineError):
    """Two models or runs cannot be compared as was asked."""


class GradientError(HooklineError):
    """A gradient cannot be seen here, or one that a hook assigned does not fit."""


class RecordError(HooklineError, LookupError):
    """A run was asked for something that it does not hold."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ChangedTensorError(RecordError):
    """A tensor kept by reference was changed in place after it was recorded."""


class NonFiniteError(HooklineError, ArithmeticError):
    """A guard found NaN or Inf in a training step.

    - `path`, `index`: the call that made it, as far as is known: in the forward the one that gave it, or in whose own
      code it was made, and of what came from outside the first that gave it on; in the backward the one that took the
      tensor, or where that is not sure the one that gave it. `index` is None where it is the gradient of a parameter,
      to which every call of the module adds;
    - `phase`: "forward" or "backward"; `step`: how many outermost calls, of the model or of modules in it that were
      called by themselves, the guard had seen before this one;
    - `run`: a `Run` of the last calls before it, and of those around them.
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


class StoreError(HooklineError):
    """A saved run cannot be written, or read back."""


class SourceError(HooklineError):
    """A MODEL or an --inputs SPEC cannot be turned into a model or its inputs."""
