"""hookline: see what every module in a PyTorch model does, without changing a bit of it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hookline.model import quiet as _quiet  # noqa: F401  # before anything else imports torch

# isort: split
from hookline.engine.attach import Module, everywhere, install, on, uninstall
from hookline.engine.call import Call
from hookline.engine.hook import Handle, HookFunction
from hookline.errors import (
    AlertError,
    ArgumentError,
    ArgumentTypeError,
    AttachError,
    CaptureError,
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
from hookline.model.select import Selection, Where, select
from hookline.model.sharded import Part
from hookline.model.tensors import Fields, Opaque
from hookline.record.keep import Keep
from hookline.record.record import CallRecord, Run, TensorInfo
from hookline.record.statistics import Stats
from hookline.result import Result
from hookline.tools.watch import Watch, watch

if TYPE_CHECKING:
    from hookline import edits
    from hookline.capturing.activations import Activations
    from hookline.capturing.batch import Calls, Kept
    from hookline.capturing.batches import Errors
    from hookline.capturing.captured import Capture
    from hookline.capturing.compared import CaptureDiff, PointDiff
    from hookline.capturing.dataset import RowDataset
    from hookline.capturing.examples import Id
    from hookline.capturing.largest import Top
    from hookline.capturing.point import Point
    from hookline.capturing.rows import Choose, Positions, Rows, rows
    from hookline.capturing.total import Total
    from hookline.capturing.totals import Totals
    from hookline.checking import RULES, Evidence, Finding, Findings, Rule, rule
    from hookline.checking.evidence import Flow, ParameterFacts, Scored, Suspect, UnitFacts, Use
    from hookline.checking.finding import Severity
    from hookline.compare.difference import Cause, Diff, Pair, Weight
    from hookline.compare.tolerances import Tolerances
    from hookline.edits.calls import When
    from hookline.edits.hooks import Change, Skip
    from hookline.guarding.guard import Then
    from hookline.matching.fingerprint import Fingerprint, fingerprint
    from hookline.matching.tensors import Difference, Tolerance
    from hookline.model.unregistered import Unregistered
    from hookline.monitoring import alerts, writers
    from hookline.monitoring.alerts import Alert, Course
    from hookline.monitoring.live import LiveMonitor, Respond, Writer
    from hookline.monitoring.monitored import Departure, Monitor, Series, Shift
    from hookline.profiling.profiled import Cost, Profile
    from hookline.sweeping.swept import Cell, Sweep
    from hookline.tools.capture import capture, open
    from hookline.tools.check import check
    from hookline.tools.diff import diff
    from hookline.tools.edit import edit
    from hookline.tools.explain import explain
    from hookline.tools.guard import guard
    from hookline.tools.hooks import HookInfo, Hooks, hooks
    from hookline.tools.monitor import monitor
    from hookline.tools.profile import profile
    from hookline.tools.stop import stop_after
    from hookline.tools.summary import summary
    from hookline.tools.sweep import Metric, sweep
    from hookline.tools.totals import totals

ON_DEMAND = {  # names that are imported on first use, so that importing hookline is fast
    "hookline.capturing.activations": ("Activations",),
    "hookline.capturing.captured": ("Capture",),
    "hookline.capturing.compared": ("CaptureDiff", "PointDiff"),
    "hookline.capturing.dataset": ("RowDataset",),
    "hookline.capturing.point": ("Point",),
    "hookline.capturing.examples": ("Id",),
    "hookline.capturing.batch": ("Calls", "Kept"),
    "hookline.capturing.largest": ("Top",),
    "hookline.capturing.total": ("Total",),
    "hookline.capturing.totals": ("Totals",),
    "hookline.capturing.rows": ("Choose", "Positions", "Rows", "rows"),
    "hookline.capturing.batches": ("Errors",),
    "hookline.checking": (
        "Evidence",
        "Finding",
        "Findings",
        "RULES",
        "Rule",
        "rule",
    ),
    "hookline.checking.evidence": (
        "Flow",
        "ParameterFacts",
        "Scored",
        "Suspect",
        "UnitFacts",
        "Use",
    ),
    "hookline.checking.finding": ("Severity",),
    "hookline.compare.difference": (
        "Cause",
        "Diff",
        "Pair",
        "Weight",
    ),
    "hookline.compare.tolerances": ("Tolerances",),
    "hookline.edits.calls": ("When",),
    "hookline.edits.hooks": (
        "Change",
        "Skip",
    ),
    "hookline.guarding.guard": ("Then",),
    "hookline.matching.fingerprint": (
        "Fingerprint",
        "fingerprint",
    ),
    "hookline.matching.tensors": (
        "Difference",
        "Tolerance",
    ),
    "hookline.model.unregistered": ("Unregistered",),
    "hookline.profiling.profiled": (
        "Cost",
        "Profile",
    ),
    "hookline.tools.capture": ("capture", "open"),
    "hookline.tools.check": ("check",),
    "hookline.tools.diff": ("diff",),
    "hookline.tools.edit": ("edit",),
    "hookline.tools.explain": ("explain",),
    "hookline.tools.guard": ("guard",),
    "hookline.tools.hooks": (
        "HookInfo",
        "Hooks",
        "hooks",
    ),
    "hookline.monitoring.alerts": ("Alert", "Course"),
    "hookline.monitoring.live": ("LiveMonitor", "Respond", "Writer"),
    "hookline.monitoring.monitored": ("Departure", "Monitor", "Series", "Shift"),
    "hookline.tools.monitor": ("monitor",),
    "hookline.tools.profile": ("profile",),
    "hookline.tools.stop": ("stop_after",),
    "hookline.tools.summary": ("summary",),
    "hookline.sweeping.swept": ("Cell", "Sweep"),
    "hookline.tools.sweep": ("Metric", "sweep"),
    "hookline.tools.totals": ("totals",),
}


_ROOMS = {  # modules that are public by a short name
    "alerts": "hookline.monitoring.alerts",
    "edits": "hookline.edits",
    "writers": "hookline.monitoring.writers",
}


if not TYPE_CHECKING:  # with this function a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name in _ROOMS:
            return import_module(_ROOMS[name])
        for module, names in ON_DEMAND.items():
            if name in names:
                found = globals()[name] = getattr(import_module(module), name)
                return found
        raise AttributeError(f"module 'hookline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]


__version__ = "0.1.0"
__all__ = [
    "Activations",
    "Alert",
    "AlertError",
    "ArgumentError",
    "ArgumentTypeError",
    "AttachError",
    "Call",
    "CallRecord",
    "Calls",
    "Capture",
    "CaptureDiff",
    "CaptureError",
    "Cause",
    "Cell",
    "Change",
    "ChangedTensorError",
    "Choose",
    "CompareError",
    "Cost",
    "Course",
    "Departure",
    "Diff",
    "Difference",
    "EditError",
    "Errors",
    "Evidence",
    "Fields",
    "Finding",
    "Findings",
    "Fingerprint",
    "Flow",
    "GradientError",
    "Handle",
    "HookFunction",
    "HookInfo",
    "HooklineError",
    "Hooks",
    "Id",
    "Keep",
    "Kept",
    "LiveMonitor",
    "Metric",
    "Module",
    "Monitor",
    "NonFiniteError",
    "Opaque",
    "Pair",
    "ParameterFacts",
    "Part",
    "Point",
    "PointDiff",
    "Positions",
    "Profile",
    "RULES",
    "RecordError",
    "Respond",
    "Result",
    "RowDataset",
    "Rows",
    "Rule",
    "Run",
    "Scored",
    "Selection",
    "SelectionError",
    "Series",
    "Severity",
    "Shift",
    "Skip",
    "SourceError",
    "Stats",
    "StoreError",
    "Suspect",
    "Sweep",
    "TensorInfo",
    "Then",
    "Tolerance",
    "Tolerances",
    "Top",
    "Total",
    "Totals",
    "UnitFacts",
    "Unregistered",
    "Use",
    "Watch",
    "Weight",
    "When",
    "Where",
    "Writer",
    "alerts",
    "capture",
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
    "monitor",
    "on",
    "open",
    "profile",
    "rows",
    "rule",
    "select",
    "stop_after",
    "summary",
    "sweep",
    "totals",
    "uninstall",
    "watch",
    "writers",
]
