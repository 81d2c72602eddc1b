"""Keep dynamo from compiling some of our functions, or have it compile PyTorch's instead."""

from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, TypeVar

from torch.nn import Module

from hookline.torch_private import FrameAction, FrameExecStrategy, set_code_exec_strategy

F = TypeVar("F", bound=Callable[..., Any])


def unseen(function: F) -> F:
    """The same function, marked so that dynamo compiles neither it nor what it calls. PyTorch calls it between graphs,
    where dynamo would compile everything that runs."""
    code: Any = function.__code__
    set_code_exec_strategy(code, FrameExecStrategy(FrameAction.SKIP, FrameAction.SKIP))
    return function


def trace_as_pytorchs(call: Any) -> None:
    """Make dynamo trace PyTorch's own call wherever a graph would contain this one.

    Dynamo has rules for what PyTorch's call reads, such as the hook dicts. So a graph is valid for other hooks with the
    same code, and has no guards on our objects.
    """
    call._torchdynamo_inline = Module.__call__


def begin_no_graph(names: dict[str, Any]) -> None:
    """Let no graph begin in the functions and methods of a Python module; `names` are its `globals()`.

    Dynamo treats PyTorch's own call in this way: it compiles the forward and the hooks that the call runs, each in its
    own graph. In a graph that began earlier, the functions are traced as usual. Without this, a change of hooks would
    recompile the whole model, and all models would share one limit of recompilations.
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
