"""hookline: PyTorch's module call, rebuilt. See what every module of any model does, and change nothing by looking."""

from hookline.engine.attach import Module, everywhere, install, on, uninstall
from hookline.engine.call import Call
from hookline.engine.hook import Handle
from hookline.errors import (
    AttachError,
    ChangedTensorError,
    GradientError,
    HooklineError,
    RecordError,
    SelectionError,
    SourceError,
    StoreError,
)
from hookline.model.select import Selection, select
from hookline.record.load import load
from hookline.record.record import CallRecord, Run, TensorInfo
from hookline.tools.check import check
from hookline.tools.inventory import HookInfo, Hooks, hooks
from hookline.tools.rules import RULES, Evidence, Finding, Findings, Rule, rule
from hookline.tools.watch import watch

__version__ = "0.1.0"
__all__ = [
    "AttachError",
    "Call",
    "CallRecord",
    "ChangedTensorError",
    "Evidence",
    "Finding",
    "Findings",
    "GradientError",
    "Handle",
    "HookInfo",
    "HooklineError",
    "Hooks",
    "Module",
    "RULES",
    "RecordError",
    "Rule",
    "Run",
    "Selection",
    "SelectionError",
    "SourceError",
    "StoreError",
    "TensorInfo",
    "check",
    "everywhere",
    "hooks",
    "install",
    "load",
    "on",
    "rule",
    "select",
    "uninstall",
    "watch",
]
