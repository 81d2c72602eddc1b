"""How a batch of inputs is passed to a model."""

from collections.abc import Mapping
from typing import Any

from torch.nn import Module


def call_with(model: Module, given: Any) -> Any:
    """Call a model with a batch: a mapping as keyword arguments, a tuple or list as positional ones, else as one."""
    if isinstance(given, Mapping):
        return model(**given)
    return model(*given) if isinstance(given, tuple | list) else model(given)
