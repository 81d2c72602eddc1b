"""Count FLOPs with PyTorch's counter, with formulas for operations that it misses or miscounts."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, TypeAlias

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

Shape: TypeAlias = Sequence[int]


class Counter(FlopCounterMode):
    """PyTorch's counter with our formulas. `unknown` lists each operation that should have FLOPs but has no formula."""

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=FORMULAS)
        self.unknown: list[str] = []

    def flops(self) -> int:
        """FLOPs so far."""
        return int(self.get_total_flops())

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        if func_packet not in self.flop_registry and should_have_flops(func_packet):
            self.unknown.append(str(func_packet))
        return super()._count_flops(func_packet, out, args, kwargs)  # type: ignore[no-untyped-call]


@contextmanager
def counting() -> Iterator[Counter]:
    """A block in which FLOPs are counted."""
    counter = Counter()
    with warnings.catch_warnings(), counter:
        warnings.filterwarnings("ignore", message="Using `torch.compile\\(module\\)` when there are global hooks")
        yield counter


def should_have_flops(operation: Any) -> bool:
    """Whether an operation should have FLOPs: by its name it multiplies matrices, convolves or the like, or it is not
    PyTorch's own, of which nothing is known.

    >>> aten = torch.ops.aten
    >>> should_have_flops(aten._cdist_forward), should_have_flops(aten.linalg_qr), should_have_flops(aten.relu)
    (True, True, False)
    """
    space, _, name = getattr(operation, "_qualified_op_name", "kernel::").partition("::")
    if space != "aten":
        return space not in WITHOUT_FLOPS
    return bool(PRODUCTS.search(name)) and not NO_PRODUCTS.search(name)


WITHOUT_FLOPS = ("prim", "prims", "profiler", "hookline", "c10d", "_c10d_functional", "_c10d_functional_autograd")
PRODUCTS = re.compile(
    r"(?:^|_)(?:\w*mm|mv|addmv|addr|dot|vdot|matmul|linear|linalg|convolution\w*|conv_\w+|conv\d\w*|rnn|lstm|gru|attention"
    r"|trilinear|cdist|pdist|fft|cholesky|lu|qr|svd|eigh?|solve|inverse|ormqr|geqrf)(?:_|$)"
)
NO_PRODUCTS = re.compile(r"^_thnn_|_flatten_weight$|_check_errors$|_unpack$|_reorder_")


def attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """The two matrix products of attention, as in PyTorch's formula for its other kernels."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def attention_backward(_: Shape, query: Shape, key: Shape, value: Shape, *__: Any, **___: Any) -> int:
    """The two products for the gradients of each product of attention. The kernel also recomputes the first product,
    which does not count, so that the figure equals that of unfused attention."""
    return 2 * attention(query, key, value)


def self_attention(
    query: Shape,
    key: Shape,
    value: Shape,
    width: int,
    heads: int,
    inwards: Shape,
    _: Any,
    outwards: Shape,
    *__: Any,
    **___: Any,
) -> int:
    """Multi-head attention in one operation, with its projections: query [batch, length, width]."""
    batch, length, _ = query
    split = [(batch, heads, shape[1], width // heads) for shape in (query, key, value)]
    projected = 2 * batch * (length + key[1] + value[1]) * width * inwards[0] // 3
    return projected + attention(*split) + 2 * batch * length * prod(outwards)


def encoder_layer(
    source: Shape, width: int, heads: int, inwards: Shape, _: Any, outwards: Shape, *rest: Any, **__: Any
) -> int:
    """A transformer encoder layer in one operation: attention and two linear layers."""
    first, second = rest[8], rest[10]
    attending = self_attention(source, source, source, width, heads, inwards, None, outwards)
    return attending + 2 * int(prod(source[:-1])) * int(prod(first) + prod(second))


def recurrent_layer(source: Shape, inwards: Shape, again: Shape, *_: Any, **__: Any) -> int:
    """One direction of one LSTM layer: both matrices once for each time step of each sequence."""
    return 2 * prod(source[:-1]) * (prod(inwards) + prod(again))


def recurrent_layer_backward(*shapes: Any, **_: Any) -> int:
    """The gradients of both factors of each product; the kernel always computes all of them."""
    return 2 * recurrent_layer(*shapes)


def convolution_backward(grad: Shape, source: Shape, weight: Shape, *rest: Any, **__: Any) -> int:
    """The requested gradients of a convolution, transposed or not.

    The gradients of the input and of the weight each take as many products as the forward. PyTorch's formula ignores
    groups, and counts up to `groups` times too many.
    """
    _, _, _, _, transposed, _, _, wanted = rest
    places = prod((source if transposed else grad)[2:])
    return 2 * int(source[0]) * int(places) * int(prod(weight)) * sum(map(bool, wanted[:2]))


_aten = torch.ops.aten
FORMULAS = {
    _aten.convolution_backward: convolution_backward,
    _aten._scaled_dot_product_flash_attention_for_cpu: attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    _aten._native_multi_head_attention: self_attention,
    _aten._transformer_encoder_layer_fwd: encoder_layer,
    _aten.mkldnn_rnn_layer: recurrent_layer,
    _aten.mkldnn_rnn_layer_backward: recurrent_layer_backward,
}
