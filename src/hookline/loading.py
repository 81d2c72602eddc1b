"""Load a saved result of any kind from its folder."""

import os
from importlib import import_module
from typing import Any

from hookline.store.folder import read_any
from hookline.store.members import damage_told

DOCUMENTS = {  # the module that reads each kind of document, imported when one is loaded
    "run": "hookline.record.run_document",
    "diff": "hookline.compare.diff_document",
    "findings": "hookline.checking.findings_document",
    "profile": "hookline.profiling.profile_document",
    "sweep": "hookline.sweeping.sweep_document",
    "comparison": "hookline.capturing.compared",
    "totals": "hookline.capturing.totals_document",
    "hooks": "hookline.tools.hooks",
    "monitor": "hookline.monitoring.monitored",
}


def load(folder: str | os.PathLike[str]) -> Any:
    """Load the result that `save(folder)` wrote: a Run, Findings, a Diff, a Profile, a Sweep, Hooks, a Monitor, a
    Capture, a CaptureDiff or Totals.

    It prints, exports and writes its page like the original. Raises StoreError where it cannot be read.

    >>> import tempfile, torch, hookline
    >>> model = torch.nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder, hookline.watch(model) as run:
    ...     _ = model(torch.ones(1, 2))
    ...     run.save(f"{folder}/run")
    ...     hookline.load(f"{folder}/run")[""].output.shape
    (1, 1)
    """
    if os.path.lexists(os.path.join(folder, "capture.json")):  # a folder of many files
        return import_module("hookline.tools.capture").open(folder)
    if os.path.lexists(os.path.join(folder, "journal.json")):
        return import_module("hookline.monitoring.monitored").read_journal(folder)
    kind, document, tensors = read_any(folder, [*DOCUMENTS])
    with damage_told(os.path.join(folder, f"{kind}.json")):
        return import_module(DOCUMENTS[kind]).decode(document, tensors)
