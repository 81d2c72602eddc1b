"""Formulas for operations whose matrix products PyTorch's own counter of FLOPs does not see: fused ones."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, TypeAlias

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

Shape: TypeAlias = Sequence[int]


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """A block that counts FLOPs; gives what says how many so far."""
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    with warnings.catch_warnings(), counter:
        warnings.filterwarnings("ignore", message="Using `torch.compile\\(module\\)` when there are global hooks")
        yield counter.get_total_flops


def attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """The two products of attention: those of PyTorch's own formula for its other kernels."""
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def attention_backward(_: Shape, query: Shape, key: Shape, value: Shape, *__: Any, **___: Any) -> int:
    """The two products that each of the two has for its gradients. That the kernel computes the first anew is left out,
    so that the count is that of attention that is not fused."""
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
    """Multi-head attention in one operation, the projections around it included: query [batch, length, width]."""
    batch, length, _ = query
    split = [(batch, heads, shape[1], width // heads) for shape in (query, key, value)]
    projected = 2 * batch * (length + key[1] + value[1]) * width * inwards[0] // 3
    return projected + attention(*split) + 2 * batch * length * prod(outwards)


def encoder_layer(
    source: Shape, width: int, heads: int, inwards: Shape, _: Any, outwards: Shape, *rest: Any, **__: Any
) -> int:
    """A whole layer of a transformer's encoder in one operation: attention and two linear maps."""
    first, second = rest[8], rest[10]
    attending = self_attention(source, source, source, width, heads, inwards, None, outwards)
    return attending + 2 * int(prod(source[:-1])) * int(prod(first) + prod(second))


def recurrent_layer(source: Shape, inwards: Shape, again: Shape, *_: Any, **__: Any) -> int:
    """One direction of one LSTM layer: both its matrices once for each step of each sequence."""
    return 2 * prod(source[:-1]) * (prod(inwards) + prod(again))


def recurrent_layer_backward(*shapes: Any, **_: Any) -> int:
    """The gradients of what each product was made of; the kernel computes all of them, wanted or not."""
    return 2 * recurrent_layer(*shapes)


_aten = torch.ops.aten
FORMULAS = {
    _aten._scaled_dot_product_flash_attention_for_cpu: attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    _aten._native_multi_head_attention: self_attention,
    _aten._transformer_encoder_layer_fwd: encoder_layer,
    _aten.mkldnn_rnn_layer: recurrent_layer,
    _aten.mkldnn_rnn_layer_backward: recurrent_layer_backward,
}
