"""What dynamo is to leave alone."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy, set_code_exec_strategy

F = TypeVar("F", bound=Callable[..., Any])


def unseen(function: F) -> F:
    """The same function, which dynamo does not compile, nor what that calls: PyTorch calls it between graphs, where
    dynamo compiles whatever runs."""
    code: Any = function.__code__
    set_code_exec_strategy(code, _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP))
    return function
