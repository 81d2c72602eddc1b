"""The one door to PyTorch's private names: what hookline uses that PyTorch does not document, and why.

`NAMES` lists those that are imported, `ATTRIBUTES` those that are read from PyTorch's objects. Each entry has its
reason and a PyTorch release that had it: "2.6" means 2.6 or earlier, "2.12" that 2.6 did not have it. The names that
load PyTorch's compiler are in `torch_private.compiler`. A test asserts that every one of them exists.
"""

from typing import Any

import torch
from torch._C import (  # type: ignore[attr-defined]
    DisableTorchFunction,
    _current_graph_task_id,
    _DisableTorchDispatch,
    _get_tracing_state,
    _is_tracing,
    _set_tracing_state,
    _will_engine_execute_node,
)
from torch._C._autograd import _top_saved_tensors_default_hooks
from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy, set_code_exec_strategy
from torch._C._functorch import (
    TransformType,
    get_interpreter_stack,
    is_functorch_wrapped_tensor,
    peek_interpreter_stack,
)
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.autograd import Variable
from torch.jit import _trace
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.module import _WrappedHook
from torch.utils._python_dispatch import _disable_current_modes, is_traceable_wrapper_subclass
from torch.utils.checkpoint import _StopRecomputationError
from torch.utils.hooks import unserializable_hook

BatchNorm = _BatchNorm
Convolution = _ConvNd
Dropout = _DropoutNd
StopRecomputing = _StopRecomputationError
WrappedHook: Any = _WrappedHook
DisableTorchDispatch: Any = _DisableTorchDispatch
FrameAction: Any = _FrameAction
FrameExecStrategy: Any = _FrameExecStrategy
current_backward_pass = _current_graph_task_id
disable_current_modes = _disable_current_modes
get_tracing_state = _get_tracing_state
is_tracing = _is_tracing
set_tracing_state = _set_tracing_state
saved_tensor_hooks: Any = _top_saved_tensors_default_hooks
tracing_to_script: Any = _trace
will_run_node: Any = _will_engine_execute_node


FINDS_SUPER = "_resolved_getattr_and_source"  # dynamo's method that finds where super() goes on


def at_end_of_backward(function: Any) -> None:
    """Call a function when the backward pass that runs now is over."""
    Variable._execution_engine.queue_callback(function)


NAMES = {  # name here: (why, since)
    "DisableTorchDispatch": ("statistics of a tensor subclass, without its own dispatch", "2.6"),
    "DisableTorchFunction": ("statistics of a tensor subclass, without its own functions", "2.6"),
    "FrameAction": ("tells dynamo to leave a frame alone", "2.12"),
    "FrameExecStrategy": ("tells dynamo to leave a frame and its callees alone", "2.12"),
    "set_code_exec_strategy": ("tells dynamo so, for one code object", "2.12"),
    "BatchNorm": ("the base class of batch norms", "2.6"),
    "Convolution": ("the base class of convolutions", "2.6"),
    "Dropout": ("the base class of dropouts", "2.6"),
    "StopRecomputing": ("how activation checkpointing ends a recomputed forward early: not a failure", "2.6"),
    "WrappedHook": ("a legacy backward hook, which PyTorch binds to its module", "2.6"),
    "TransformType": ("recognises torch.vmap", "2.6"),
    "peek_interpreter_stack": ("the innermost torch.func transform", "2.6"),
    "get_interpreter_stack": ("all torch.func transforms around a traced call", "2.6"),
    "is_functorch_wrapped_tensor": ("tensors of torch.func, whose values cannot be read", "2.6"),
    "FakeTensor": ("tensors without data", "2.6"),
    "FakeTensorMode": ("runs a model without data", "2.6"),
    "DataDependentOutputException": ("what the mode raises where the data decide", "2.6"),
    "DynamicOutputShapeException": ("what the mode raises where the data decide a shape", "2.6"),
    "UnsupportedOperatorException": ("what the mode raises for an operator without a fake", "2.6"),
    "current_backward_pass": ("the number of the running backward pass, -1 outside of one", "2.6"),
    "disable_current_modes": ("makes a real tensor while a dispatch mode is on", "2.6"),
    "get_tracing_state": ("whether torch.jit.trace runs, to pause it", "2.6"),
    "is_tracing": ("whether torch.jit.trace runs", "2.6"),
    "set_tracing_state": ("pauses torch.jit.trace", "2.6"),
    "is_traceable_wrapper_subclass": ("subclasses that are made of inner tensors", "2.6"),
    "saved_tensor_hooks": ("recognises a checkpointed segment by its hooks", "2.12"),
    "tracing_to_script": ("its _trace_module_map: PyTorch's call keeps module scopes while it is set", "2.6"),
    "unserializable_hook": ("a tensor hook that pickling a tensor leaves out", "2.6"),
    "will_run_node": ("whether a node runs in this backward pass", "2.6"),
    "FINDS_SUPER": ("dynamo's method where a stand-in class must not equal its original", "2.6"),
    "at_end_of_backward": ("Variable._execution_engine.queue_callback", "2.6"),
}

ATTRIBUTES: dict[Any, dict[str, tuple[str, str]]] = {  # of each object: name: (why, since)
    torch.nn.Module: {
        "_call_impl": ("PyTorch's own call", "2.6"),
        "_compiled_call_impl": ("the slot that PyTorch's call looks at first", "2.6"),
        "_slow_forward": ("the forward with module scopes, under torch.jit.trace", "2.6"),
        "_wrapped_call_impl": ("reads the slot twice; see engine/site.py", "2.6"),
    },
    torch.nn.Module(): {
        "_forward_hooks": ("PyTorch's hooks, which the engine runs", "2.6"),
        "_forward_hooks_with_kwargs": ("which of them take kwargs", "2.6"),
        "_forward_hooks_always_called": ("which of them run after an error", "2.6"),
        "_forward_pre_hooks": ("PyTorch's hooks, which the engine runs", "2.6"),
        "_forward_pre_hooks_with_kwargs": ("which of them take kwargs", "2.6"),
        "_backward_hooks": ("PyTorch's hooks, which the engine runs", "2.6"),
        "_backward_pre_hooks": ("PyTorch's hooks, which the engine runs", "2.6"),
        "_is_full_backward_hook": ("which kind the backward hooks are", "2.6"),
    },
    torch.nn.modules.module: {
        "_global_forward_hooks": ("PyTorch's global hooks, which the engine runs", "2.6"),
        "_global_forward_hooks_with_kwargs": ("which of them take kwargs", "2.6"),
        "_global_forward_hooks_always_called": ("which of them run after an error", "2.6"),
        "_global_forward_pre_hooks": ("PyTorch's global hooks, which the engine runs", "2.6"),
        "_global_backward_hooks": ("PyTorch's global hooks, which the engine runs", "2.6"),
        "_global_backward_pre_hooks": ("PyTorch's global hooks, which the engine runs", "2.6"),
    },
    torch.zeros(1): {
        "_version": ("whether a tensor was changed in place", "2.6"),
        "_base": ("what a view is a view of", "2.6"),
        "_backward_hooks": ("whether a tensor has hooks already", "2.6"),
    },
    tracing_to_script: {"_trace_module_map": ("set while torch.jit.trace runs on a module", "2.6")},
}

__all__ = [
    "FINDS_SUPER",
    "BatchNorm",
    "Convolution",
    "DataDependentOutputException",
    "DisableTorchDispatch",
    "DisableTorchFunction",
    "Dropout",
    "DynamicOutputShapeException",
    "FakeTensor",
    "FakeTensorMode",
    "FrameAction",
    "FrameExecStrategy",
    "StopRecomputing",
    "TransformType",
    "UnsupportedOperatorException",
    "WrappedHook",
    "at_end_of_backward",
    "current_backward_pass",
    "disable_current_modes",
    "get_interpreter_stack",
    "get_tracing_state",
    "is_functorch_wrapped_tensor",
    "is_traceable_wrapper_subclass",
    "is_tracing",
    "peek_interpreter_stack",
    "saved_tensor_hooks",
    "set_code_exec_strategy",
    "set_tracing_state",
    "tracing_to_script",
    "unserializable_hook",
    "will_run_node",
]
