"""Find the running checkpointed segment: one object for the forward and for its recomputation in the backward pass."""

import sys
from types import FrameType, GeneratorType
from typing import Any

from torch import is_grad_enabled
from torch.utils import checkpoint

from hookline.torch_private import current_backward_pass, saved_tensor_hooks

FILE = checkpoint.__file__
CONTEXT: Any = checkpoint.CheckpointFunction._backward_cls


def segment() -> Any:
    """The object by which `torch.utils.checkpoint` tracks the innermost segment that runs on this thread, or None.

    It is found in PyTorch's own frames on the stack: its `_CheckpointFrame`, or with reentrant autograd the context of
    its `CheckpointFunction`.
    """
    if (
        is_grad_enabled() and current_backward_pass() == -1 and saved_tensor_hooks(True) is None
    ):  # no segment runs like this
        return None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == FILE:
            found = _held(frame)
            if found is not None:
                return found
        frame = frame.f_back
    return None


def _held(frame: FrameType) -> Any:
    """The segment object among the local variables of one of PyTorch's frames.

    It is recognized by its class, since the names of functions and variables change from release to release.
    """
    for value in frame.f_locals.values():
        inside = getattr(value, "gi_frame", None) if isinstance(value, GeneratorType) else None
        for held in (value, *(inside.f_locals.values() if inside is not None else ())):
            if isinstance(held, checkpoint._CheckpointFrame | CONTEXT):
                return held
    return None
