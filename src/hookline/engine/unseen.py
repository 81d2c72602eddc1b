"""Functions that dynamo does not compile, or compiles others in the place of."""

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, TypeVar

from torch.nn import Module

from hookline.torch_private import FrameAction, FrameExecStrategy, set_code_exec_strategy

F = TypeVar("F", bound=Callable[..., Any])


def unseen(function: F) -> F:
    """The same function, which dynamo does not compile, nor what that calls: PyTorch calls it between graphs, where
    dynamo compiles whatever runs."""
    code: Any = function.__code__
    set_code_exec_strategy(code, FrameExecStrategy(FrameAction.SKIP, FrameAction.SKIP))
    return function


def trace_as_pytorchs(call: Any) -> None:
    """Have dynamo trace PyTorch's own call wherever a graph would contain this one.

    Dynamo has rules for what PyTorch's call reads, the hook dicts among them: a graph holds for other hooks of the same
    code, and guards on nothing of ours.
    """
    call._torchdynamo_inline = Module.__call__


def begin_no_graph(names: dict[str, Any]) -> None:
    """Have no graph begin in the functions and methods of a module, given its `globals()`.

    Dynamo treats PyTorch's own call in this way: it compiles the forward and the hooks that the call runs, each in a
    graph of its own. In a graph that began earlier, the functions are traced as usual. Without this, a change of hooks
    would recompile the whole model, and one count of recompilations would stand for all models.
    """
    for value in names.values():
        if getattr(value, "__module__", None) == names["__name__"]:
            for function in (value, *vars(value).values()) if isinstance(value, type) else (value,):
                if isinstance(function, FunctionType):
                    _begin_no_graph(function.__code__)


def _begin_no_graph(code: CodeType) -> None:
    set_code_exec_strategy(code, FrameExecStrategy(FrameAction.SKIP, FrameAction.DEFAULT))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            _begin_no_graph(inner)
