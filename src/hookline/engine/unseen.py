"""What dynamo is to leave alone."""

from collections.abc import Callable
from typing import Any, TypeVar

from hookline.torch_private import FrameAction, FrameExecStrategy, set_code_exec_strategy

F = TypeVar("F", bound=Callable[..., Any])


def unseen(function: F) -> F:
    """The same function, which dynamo does not compile, nor what that calls: PyTorch calls it between graphs, where
    dynamo compiles whatever runs."""
    code: Any = function.__code__
    set_code_exec_strategy(code, FrameExecStrategy(FrameAction.SKIP, FrameAction.SKIP))
    return function
