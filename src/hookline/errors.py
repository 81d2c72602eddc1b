"""Every exception that hookline raises on purpose.

    HooklineError
    ├── SelectionError      a pattern, type or module picks nothing in this model
    ├── AttachError         a module cannot be hooked
    ├── EditError           an edit is not one, or does not fit the call that it is to change
    ├── CompareError        two models or runs cannot be compared as was asked
    ├── GradientError       a gradient cannot be seen here, or one that a step assigned does not fit
    ├── RecordError         a run was asked for something that it does not hold
    │   └── ChangedTensorError   a tensor kept by reference was changed in place since
    ├── StoreError          a saved run cannot be written, or read back
    └── SourceError         a MODEL or --inputs SPEC cannot be turned into a model or its inputs

Each says what happened, where, and what to do about it.
"""


class HooklineError(Exception):
    """The root: `except HooklineError` catches whatever hookline itself complains about."""


class SelectionError(HooklineError, LookupError):
    """A pattern, type or module picks nothing in this model."""


class AttachError(HooklineError):
    """A module cannot be hooked."""


class EditError(HooklineError):
    """An edit is not one, or does not fit the call that it is to change."""


class CompareError(HooklineError):
    """Two models or runs cannot be compared as was asked."""


class GradientError(HooklineError):
    """A gradient cannot be seen here, or one that a step assigned does not fit."""


class RecordError(HooklineError, LookupError):
    """A run was asked for something that it does not hold."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ChangedTensorError(RecordError):
    """A tensor kept by reference was changed in place after it was recorded."""


class StoreError(HooklineError):
    """A saved run cannot be written, or read back."""


class SourceError(HooklineError):
    """A MODEL or an --inputs SPEC cannot be turned into a model or its inputs."""
