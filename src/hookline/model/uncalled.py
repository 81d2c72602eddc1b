"""Modules that their parent never calls: hooks on them cannot fire."""

import warnings
from collections.abc import Collection, Iterable

from torch.nn import Module, MultiheadAttention

from hookline.messages import outside


def warn_of_uncalled(named: Iterable[tuple[Module, tuple[str, ...]]], picked: Collection[str]) -> None:
    """A warning where every module that was picked is one that is never called: somebody wanted to see it at work."""
    attentions = [(module, own[0]) for module, own in named if _reads_weights(module)]
    uncalled = {f"{path}.out_proj".removeprefix("."): path for _, path in attentions}
    if not all(path in uncalled for path in picked):
        return
    path = next(iter(picked))
    around = uncalled[path] or "the model"
    warnings.warn(
        f"{path} is never called: MultiheadAttention reads its weights and does the rest itself, so that no hook on it "
        f"fires; take {around} instead",
        stacklevel=outside()[1],
    )


def _reads_weights(module: Module) -> bool:
    return isinstance(module, MultiheadAttention) and type(module).forward is MultiheadAttention.forward
