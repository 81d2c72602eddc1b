"""load: a saved run, back from its folder."""

import os

from hookline.record.record import Run
from hookline.record.run_document import from_document
from hookline.store.folder import read


def load(folder: str | os.PathLike[str]) -> Run:
    """The run that `run.save(folder)` wrote; StoreError that says what is wrong where it cannot be read.

    >>> import tempfile, torch, hookline
    >>> model = torch.nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder, hookline.watch(model) as run:
    ...     _ = model(torch.ones(1, 2))
    ...     run.save(f"{folder}/run")
    ...     hookline.load(f"{folder}/run")[""].output.shape
    (1, 1)
    """
    document, tensors = read(folder)
    return from_document(document, tensors, source=os.path.join(folder, "run.json"))
