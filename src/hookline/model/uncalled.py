"""Modules that their parent never calls: hooks on them cannot fire."""

import warnings
from collections.abc import Collection, Iterable

from torch.nn import Module, MultiheadAttention

from hookline.messages import outside


def warn_of_uncalled(named: Iterable[tuple[Module, tuple[str, ...]]], picked: Collection[str]) -> None:
    """Warn if every picked module is never called, since its hooks would never run."""
    attentions = [(module, own[0]) for module, own in named if _reads_weights(module)]
    uncalled = {f"{path}.out_proj".removeprefix("."): path for _, path in attentions}
    if not all(path in uncalled for path in picked):
        return
    path = next(iter(picked))
    around = uncalled[path] or "the model"
    warnings.warn(
        f"{path} is never called: MultiheadAttention only reads its weights, so no hook on it runs; "
        f"use {around} instead",
        stacklevel=outside()[1],
    )


def _reads_weights(module: Module) -> bool:
    return isinstance(module, MultiheadAttention) and type(module).forward is MultiheadAttention.forward
