"""hookline: PyTorch's module call, rebuilt. See what every module of any model does, and change nothing by looking."""

from hookline.engine.attach import Module, everywhere, install, on, uninstall
from hookline.engine.call import Call
from hookline.engine.hook import Handle
from hookline.errors import (
    AttachError,
    ChangedTensorError,
    GradientError,
    HooklineError,
    NonFiniteError,
    RecordError,
    SelectionError,
    SourceError,
    StoreError,
)
from hookline.model.select import Selection, select
from hookline.record.load import load
from hookline.record.record import CallRecord, Run, TensorInfo
from hookline.tools.explain import explain
from hookline.tools.guard import guard
from hookline.tools.inventory import HookInfo, Hooks, hooks
from hookline.tools.watch import watch

__version__ = "0.1.0"
__all__ = [
    "AttachError",
    "Call",
    "CallRecord",
    "ChangedTensorError",
    "GradientError",
    "Handle",
    "HookInfo",
    "HooklineError",
    "Hooks",
    "Module",
    "NonFiniteError",
    "RecordError",
    "Run",
    "Selection",
    "SelectionError",
    "SourceError",
    "StoreError",
    "TensorInfo",
    "everywhere",
    "explain",
    "guard",
    "hooks",
    "install",
    "load",
    "on",
    "select",
    "uninstall",
    "watch",
]
