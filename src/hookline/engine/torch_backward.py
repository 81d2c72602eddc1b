"""PyTorch's backward hooks in one call: full ones around the module, legacy ones on an autograd node of its output."""

import warnings
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.utils.hooks import BackwardHook

from hookline.engine.global_hooks import process
from hookline.engine.unseen import begin_no_graph
from hookline.torch_private import WrappedHook


def has_backward_hooks(module: Module) -> bool:
    """Whether a call of this module has backward hooks of any kind."""
    namespace = module.__dict__
    return bool(
        namespace["_backward_hooks"]
        or namespace["_backward_pre_hooks"]
        or process["_global_backward_hooks"]
        or process["_global_backward_pre_hooks"]
    )


class BackwardHooks:
    """The backward hooks of one call, collected before the call begins.

    PyTorch's own `BackwardHook` is used for full backward hooks: it defines what they see, and when.
    """

    __slots__ = ("full", "legacy")

    def __init__(self, module: Module) -> None:
        pre = module._get_backward_pre_hooks()  # type: ignore[no-untyped-call]
        full, legacy = module._get_backward_hooks()  # type: ignore[no-untyped-call]
        self.full = BackwardHook(module, full, pre) if full or pre else None
        self.legacy = tuple(WrappedHook(hook, module) for hook in legacy)

    def of_inputs(self, args: Any) -> Any:
        """The positional arguments, behind an autograd node if there are full hooks."""
        return args if self.full is None else self.full.setup_input_hook(args)  # type: ignore[no-untyped-call]

    def of_output(self, module: Module, args: Any, output: Any) -> Any:
        """The output, likewise; legacy hooks are registered on the node of its first tensor."""
        if self.full is not None:
            if not isinstance(output, (Tensor, tuple)):
                warnings.warn(
                    "For backward hooks to be called, module output should be a Tensor or a tuple of Tensors"
                    f" but received {type(output)}",
                    stacklevel=3,
                )
            output = self.full.setup_output_hook(output)  # type: ignore[no-untyped-call]
        node = first_tensor(output).grad_fn if self.legacy else None
        if node is not None:
            for hook in self.legacy:
                node.register_hook(hook)
            if not _is_one_step(args, output, node):
                module._maybe_warn_non_full_backward_hook(args, output, node)
        return output


def first_tensor(output: Any) -> Tensor:
    """The tensor that legacy hooks are for: in a dict the first value that is a tensor, in anything else element 0,
    repeatedly."""
    while not isinstance(output, Tensor):
        if isinstance(output, dict):
            output = next(value for value in output.values() if isinstance(value, Tensor))
        else:
            output = output[0]
    return output


def _is_one_step(args: Any, output: Any, node: Any) -> bool:
    """Whether one autograd node leads from one argument to the output, so that PyTorch would not warn."""
    if not (type(output) is Tensor and len(args) == 1 and isinstance(args[0], Tensor)):
        return False
    before = node.next_functions
    return len(before) == 1 and before[0][0] is args[0].grad_fn


begin_no_graph(globals())
