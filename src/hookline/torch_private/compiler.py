"""The private names of PyTorch's compiler. Importing this file loads the compiler, which takes a second or two: import
it inside functions that run while something is compiled."""

from typing import Any

from torch._C._dynamo.eval_frame import _debug_get_cache_entry_list
from torch._dynamo import compiled_autograd, config, convert_frame
from torch._dynamo.exc import PackageError
from torch._dynamo.symbolic_convert import InstructionTranslator
from torch._higher_order_ops.effects import EffectType, _register_effectful_op  # type: ignore[attr-defined]
from torch.fx._lazy_graph_module import _LazyGraphModule
from torch.fx.experimental.symbolic_shapes import guard_or_false, guard_or_true

LazyGraphModule = _LazyGraphModule
graphs_of_code: Any = _debug_get_cache_entry_list
register_effectful_op = _register_effectful_op

NAMES = {  # name here: (why, since)
    "EffectType": ("marks the tap of a gradient as one with an effect, so that no compiler removes it", "2.12"),
    "register_effectful_op": ("the same", "2.6"),
    "InstructionTranslator": ("the trace that runs now: its graph, frames and backend", "2.6"),
    "LazyGraphModule": ("a graph that compiles itself at its first call", "2.6"),
    "PackageError": ("what dynamo raises where a graph cannot be kept for other processes", "2.12"),
    "compiled_autograd": ("its compiled_autograd_enabled: whether the backward pass is compiled", "2.6"),
    "config": ("its compiled_autograd: the same, by setting", "2.6"),
    "convert_frame": ("its compile_frame, which traces one frame, is wrapped; its input_codes list the graphs", "2.12"),
    "graphs_of_code": ("the graphs of a code object, whose guards name the classes they know", "2.6"),
    "guard_or_false": ("asks about a size without fixing it", "2.12"),
    "guard_or_true": ("asks about a number without fixing it", "2.12"),
}

__all__ = [
    "EffectType",
    "InstructionTranslator",
    "LazyGraphModule",
    "PackageError",
    "compiled_autograd",
    "config",
    "convert_frame",
    "graphs_of_code",
    "guard_or_false",
    "guard_or_true",
    "register_effectful_op",
]


def tracing() -> Any:
    """Dynamo's trace of the frame that it traces now."""
    return InstructionTranslator.current_tx()
