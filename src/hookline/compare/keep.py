"""What is kept of the tensors of two models that are compared: each once, however many calls it passes through."""

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor

from hookline.errors import ArgumentTypeError
from hookline.record.keep import Keep, takes_call, version_of


class Once:
    """What a function makes of a tensor, or a copy of it; made once of one that comes again unchanged, as what a module
    gives comes to the next."""

    def __init__(self, keep: Keep) -> None:
        if takes_call(keep):
            raise ArgumentTypeError("the keep of a diff is a function of the tensor alone: one tensor has many calls")
        self.make: Callable[..., Any] = keep if callable(keep) else lambda tensor: tensor.detach().clone()
        self.made: dict[int, tuple[weakref.ref[Tensor], int, Any]] = {}

    def __call__(self, tensor: Tensor) -> Any:
        """What was made of this tensor."""
        key, version = id(tensor), version_of(tensor)
        reference, last, found = self.made.get(key, (None, None, None))
        if reference is not None and reference() is tensor and last == version:
            return found
        found = self.make(tensor)
        if version is not None:
            self.made[key] = weakref.ref(tensor, lambda _: self.made.pop(key, None)), version, found
        return found
