"""The private names of PyTorch's compiler, a line each as in the package. Importing this file loads the compiler, which
takes a second or two: import it inside functions that run while something is compiled."""

from typing import Any

from torch._C._dynamo.eval_frame import _debug_get_cache_entry_list as graphs_of_code  # 2.6: whose guards name classes
from torch._dynamo import compiled_autograd as compiled_autograd  # 2.6: whether the backward pass is compiled
from torch._dynamo import config as config  # 2.6: the same, by setting
from torch._dynamo.exc import PackageError as PackageError  # 2.12: a graph cannot be kept for other processes
from torch._dynamo.symbolic_convert import InstructionTranslator as InstructionTranslator  # 2.6: the trace that runs
from torch._higher_order_ops.effects import EffectType as EffectType  # type: ignore[attr-defined]  # 2.12: keeps taps
from torch._higher_order_ops.effects import _register_effectful_op as register_effectful_op  # 2.6: the same
from torch.fx._lazy_graph_module import _LazyGraphModule as LazyGraphModule  # 2.6: compiles itself at its first call
from torch.fx.experimental.symbolic_shapes import guard_or_false as guard_or_false  # 2.12: asks without fixing a size
from torch.fx.experimental.symbolic_shapes import guard_or_true as guard_or_true  # 2.12: the same


def tracing() -> Any:
    """Dynamo's trace of the frame that it traces now."""
    return InstructionTranslator.current_tx()
