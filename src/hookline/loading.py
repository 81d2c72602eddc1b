"""load: a saved result of any kind, back from its folder."""

import os
from importlib import import_module
from typing import Any

from hookline.store.folder import read_any
from hookline.store.members import damage_told

DOCUMENTS = {  # which module reads a document of which kind; imported when one is loaded
    "run": "hookline.record.run_document",
    "diff": "hookline.compare.diff_document",
    "findings": "hookline.checking.findings_document",
    "profile": "hookline.profiling.profile_document",
    "sweep": "hookline.sweeping.sweep_document",
    "hooks": "hookline.tools.hooks",
}


def load(folder: str | os.PathLike[str]) -> Any:
    """The result that `save(folder)` wrote: a Run, Findings, a Diff, a Profile, a Sweep or Hooks. It prints, pages and
    exports as the original.

    Raises StoreError that says what is wrong where it cannot be read.

    >>> import tempfile, torch, hookline
    >>> model = torch.nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder, hookline.watch(model) as run:
    ...     _ = model(torch.ones(1, 2))
    ...     run.save(f"{folder}/run")
    ...     hookline.load(f"{folder}/run")[""].output.shape
    (1, 1)
    """
    kind, document, tensors = read_any(folder, [*DOCUMENTS])
    with damage_told(os.path.join(folder, f"{kind}.json")):
        return import_module(DOCUMENTS[kind]).decode(document, tensors)
