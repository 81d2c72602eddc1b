"""hookline: PyTorch's module call, rebuilt. See what every module of any model does, and change nothing by looking."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hookline.model import quiet as _quiet  # noqa: F401  # before anything else imports torch

# isort: split
from hookline.engine.attach import Module, everywhere, install, on, uninstall
from hookline.engine.call import Call
from hookline.engine.hook import Handle
from hookline.errors import (
    AttachError,
    ChangedTensorError,
    CompareError,
    EditError,
    GradientError,
    HooklineError,
    NonFiniteError,
    RecordError,
    SelectionError,
    SourceError,
    StoreError,
)
from hookline.loading import load
from hookline.model.select import Selection, select
from hookline.record.record import CallRecord, Run, TensorInfo
from hookline.result import Result
from hookline.tools.hooks import HookInfo, Hooks, hooks
from hookline.tools.watch import watch

if TYPE_CHECKING:
    from hookline import edits
    from hookline.checking import RULES, Evidence, Finding, Findings, Rule, rule
    from hookline.compare.difference import Diff, Pair
    from hookline.matching.fingerprint import fingerprint
    from hookline.matching.tensors import Difference
    from hookline.profiling.profiled import Cost, Profile
    from hookline.sweeping.swept import Sweep
    from hookline.tools.check import check
    from hookline.tools.diff import diff
    from hookline.tools.edit import edit
    from hookline.tools.explain import explain
    from hookline.tools.guard import guard
    from hookline.tools.profile import profile
    from hookline.tools.stop import stop_after
    from hookline.tools.sweep import sweep

ON_DEMAND = {  # what is imported when it is first asked for, so that importing hookline costs little
    "hookline.matching.fingerprint": ("fingerprint",),
    "hookline.compare.difference": (
        "Diff",
        "Pair",
    ),
    "hookline.matching.tensors": ("Difference",),
    "hookline.profiling.profiled": (
        "Cost",
        "Profile",
    ),
    "hookline.tools.check": ("check",),
    "hookline.tools.diff": ("diff",),
    "hookline.tools.edit": ("edit",),
    "hookline.tools.explain": ("explain",),
    "hookline.tools.guard": ("guard",),
    "hookline.tools.profile": ("profile",),
    "hookline.checking": (
        "RULES",
        "Evidence",
        "Finding",
        "Findings",
        "Rule",
        "rule",
    ),
    "hookline.tools.stop": ("stop_after",),
    "hookline.sweeping.swept": ("Sweep",),
    "hookline.tools.sweep": ("sweep",),
}


def __getattr__(name: str) -> Any:
    if name == "edits":
        return import_module("hookline.edits")
    for module, names in ON_DEMAND.items():
        if name in names:
            found = globals()[name] = getattr(import_module(module), name)
            return found
    raise AttributeError(f"module 'hookline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]


__version__ = "0.1.0"
__all__ = [
    "AttachError",
    "Call",
    "CallRecord",
    "ChangedTensorError",
    "CompareError",
    "Cost",
    "Diff",
    "Difference",
    "EditError",
    "Evidence",
    "Finding",
    "Findings",
    "GradientError",
    "Handle",
    "HookInfo",
    "HooklineError",
    "Hooks",
    "Module",
    "NonFiniteError",
    "Pair",
    "Profile",
    "RULES",
    "RecordError",
    "Result",
    "Rule",
    "Run",
    "Selection",
    "SelectionError",
    "SourceError",
    "StoreError",
    "Sweep",
    "TensorInfo",
    "check",
    "diff",
    "edit",
    "edits",
    "everywhere",
    "explain",
    "fingerprint",
    "guard",
    "hooks",
    "install",
    "load",
    "on",
    "profile",
    "rule",
    "select",
    "stop_after",
    "sweep",
    "uninstall",
    "watch",
]
