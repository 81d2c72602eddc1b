"""The only place that imports PyTorch's private names.

Each line ends with a PyTorch release that had the name ("2.6" means 2.6 or earlier, "2.12" that 2.6 did not have it)
and with what hookline uses it for. The names that load PyTorch's compiler are in `torch_private.compiler`. Tests assert
that every name exists, and that no other file imports a private one.
"""

from collections.abc import Callable

from torch._C import DisableTorchFunction as DisableTorchFunction  # 2.6: statistics of a tensor subclass
from torch._C import _current_graph_task_id as current_backward_pass  # 2.6: which backward pass runs, -1 without
from torch._C import _DisableTorchDispatch as DisableTorchDispatch  # 2.6: statistics of a tensor subclass
from torch._C import _get_tracing_state as get_tracing_state  # 2.6: pauses torch.jit.trace
from torch._C import _is_tracing as is_tracing  # 2.6: whether torch.jit.trace runs
from torch._C import _set_tracing_state as set_tracing_state  # type: ignore[attr-defined]  # 2.6: pauses torch.jit.trace
from torch._C import _will_engine_execute_node as will_run_node  # 2.6: whether a node runs in this backward pass
from torch._C._autograd import _top_saved_tensors_default_hooks as saved_tensor_hooks  # 2.12: finds checkpoints
from torch._C._dynamo.eval_frame import _FrameAction as FrameAction  # 2.12: has dynamo leave a frame alone
from torch._C._dynamo.eval_frame import _FrameExecStrategy as FrameExecStrategy  # 2.12: and what it calls
from torch._C._dynamo.eval_frame import set_code_exec_strategy as set_code_exec_strategy  # 2.12: of a code object
from torch._C._functorch import TransformType as TransformType  # 2.6: recognizes torch.vmap
from torch._C._functorch import get_interpreter_stack as get_interpreter_stack  # 2.6: the torch.func transforms
from torch._C._functorch import is_functorch_wrapped_tensor as is_functorch_wrapped_tensor  # 2.6: no values to read
from torch._C._functorch import peek_interpreter_stack as peek_interpreter_stack  # 2.6: the innermost of them
from torch._subclasses.fake_tensor import DataDependentOutputException as DataDependentOutputException  # 2.6: raised
from torch._subclasses.fake_tensor import DynamicOutputShapeException as DynamicOutputShapeException  # 2.6: by the
from torch._subclasses.fake_tensor import FakeTensor as FakeTensor  # 2.6: a tensor without data
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode  # 2.6: runs a model without data
from torch._subclasses.fake_tensor import UnsupportedOperatorException as UnsupportedOperatorException  # 2.6: mode
from torch.autograd import Variable as Autograd  # 2.6: _execution_engine.queue_callback: the end of a backward pass
from torch.jit import _trace as tracing_to_script  # 2.6: _trace_module_map is set while a module is traced
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # 2.6: the base of batch norms
from torch.nn.modules.conv import _ConvNd as Convolution  # 2.6: the base of convolutions
from torch.nn.modules.dropout import _DropoutNd as Dropout  # 2.6: the base of dropouts
from torch.nn.modules.module import _WrappedHook as WrappedHook  # 2.6: a legacy backward hook with its module
from torch.utils._python_dispatch import _disable_current_modes as disable_current_modes  # 2.6: to make a real tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass as is_wrapper_subclass  # 2.6: has inner tensors
from torch.utils.checkpoint import _StopRecomputationError as StopRecomputing  # 2.6: ends recomputing: no failure
from torch.utils.hooks import unserializable_hook as unserializable_hook  # 2.6: a hook that pickling leaves out

FINDS_SUPER = "_resolved_getattr_and_source"  # 2.6: SuperVariable's method where a stand-in is not its original


def at_end_of_backward(function: Callable[[], None]) -> None:
    """Call a function when the backward pass that runs now is over."""
    Autograd._execution_engine.queue_callback(function)


ATTRIBUTES = {  # what is read of PyTorch's objects: the object, the release, what for
    "_call_impl": "torch.nn.Module: 2.6: PyTorch's own call",
    "_compiled_call_impl": "torch.nn.Module: 2.6: the slot that PyTorch's call looks at first",
    "_slow_forward": "torch.nn.Module: 2.6: the forward with module scopes, under torch.jit.trace",
    "_wrapped_call_impl": "torch.nn.Module: 2.6: reads the slot twice",
    "_forward_hooks": "torch.nn.Module(): 2.6: hooks that the engine runs",
    "_forward_hooks_with_kwargs": "torch.nn.Module(): 2.6: which of them take kwargs",
    "_forward_hooks_always_called": "torch.nn.Module(): 2.6: which of them run after an error",
    "_forward_pre_hooks": "torch.nn.Module(): 2.6: hooks that the engine runs",
    "_forward_pre_hooks_with_kwargs": "torch.nn.Module(): 2.6: which of them take kwargs",
    "_backward_hooks": "torch.nn.Module(): 2.6: hooks that the engine runs",
    "_backward_pre_hooks": "torch.nn.Module(): 2.6: hooks that the engine runs",
    "_is_full_backward_hook": "torch.nn.Module(): 2.6: which kind the backward hooks are",
    "_global_forward_hooks": "torch.nn.modules.module: 2.6: hooks that the engine runs",
    "_global_forward_hooks_with_kwargs": "torch.nn.modules.module: 2.6: which of them take kwargs",
    "_global_forward_hooks_always_called": "torch.nn.modules.module: 2.6: which of them run after an error",
    "_global_forward_pre_hooks": "torch.nn.modules.module: 2.6: hooks that the engine runs",
    "_global_backward_hooks": "torch.nn.modules.module: 2.6: hooks that the engine runs",
    "_global_backward_pre_hooks": "torch.nn.modules.module: 2.6: hooks that the engine runs",
    "_version": "torch.zeros(1): 2.6: whether a tensor was changed in place",
    "_base": "torch.zeros(1): 2.6: what a view is a view of",
}
