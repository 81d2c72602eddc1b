"""The input that a torch.nn layer expects and the one it received: a sentence, only where they surely do not fit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from hookline.engine.forwarding import original_class
from hookline.messages import dtype_name

Hint: TypeAlias = Callable[[Any, Tensor], str | None]
AXES = {1: "length", 2: "height, width", 3: "depth, height, width"}


def hint(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The input that a layer expects and the one it received; "" if they fit, or the layer is not known here.

    >>> hint(nn.Linear(8, 2), (torch.zeros(2, 4),), {})
    'Linear(in_features=8) expects [..., 8], got [2, 4].'
    """
    kind: Any = original_class(module)
    given = args[0] if args else kwargs.get("input", kwargs.get("query"))
    if kind not in HINTS or not isinstance(given, Tensor):
        return ""
    return " ".join(found for found in (HINTS[kind](module, given), *_unlike_weights(module, given)) if found)


def _unlike_weights(module: nn.Module, given: Tensor) -> Iterator[str]:
    """Sentences about an input on another device than the parameters, or in a dtype that autocast does not cast."""
    name, weight = next(iter(module.named_parameters()), ("", None))
    if weight is None:
        return
    if weight.device != given.device:
        yield f"Its {name} is on {weight.device} and its input on {given.device}."
    takes_indices = isinstance(module, nn.Embedding | nn.EmbeddingBag)
    if takes_indices or weight.dtype == given.dtype or torch.is_autocast_enabled(given.device.type):
        return
    yield f"Its {name} is {dtype_name(weight.dtype)} and its input {dtype_name(given.dtype)}."


def _width(module: nn.Linear, given: Tensor) -> str | None:
    return _last(f"Linear(in_features={module.in_features})", module.in_features, given)


def _recurrent(module: nn.RNNBase, given: Tensor) -> str | None:
    return _last(f"{_name(module)}(input_size={module.input_size})", module.input_size, given)


def _attention(module: nn.MultiheadAttention, given: Tensor) -> str | None:
    return _last(f"MultiheadAttention(embed_dim={module.embed_dim})", module.embed_dim, given)


def _last(layer: str, wanted: int, given: Tensor) -> str | None:
    if given.dim() and given.shape[-1] == wanted:
        return None
    return f"{layer} expects [..., {wanted}], got {[*given.shape]}.{_elsewhere(wanted, given, -1)}"


def _convolution(module: Any, given: Tensor) -> str | None:
    dims, channels = len(module.kernel_size), module.in_channels
    fits = given.dim() in (dims + 1, dims + 2)
    if fits and given.shape[-dims - 1] == channels:
        return None
    layer = f"{_name(module)}(in_channels={channels})"
    told = f"{layer} expects [batch, {channels}, {AXES[dims]}], got {[*given.shape]}."
    return told + (_elsewhere(channels, given, -dims - 1) if fits else "")


def _batch_norm(module: Any, given: Tensor) -> str | None:
    dims = BATCH_NORM_DIMS[original_class(module)]
    if given.dim() in dims and given.shape[1] == module.num_features:
        return None
    axes = AXES[dims[-1] - 2]
    layer = f"{_name(module)}(num_features={module.num_features})"
    told = f"{layer} expects [batch, {module.num_features}, {axes}], got {[*given.shape]}."
    if given.dim() == dims[0] - 1 and given.shape[:1] == (module.num_features,):
        return f"{told} Is the batch axis missing, or the channels?"
    return told + (_elsewhere(module.num_features, given, 1) if given.dim() in dims else "")


def _layer_norm(module: nn.LayerNorm | nn.RMSNorm, given: Tensor) -> str | None:
    wanted = [*module.normalized_shape]
    if [*given.shape[-len(wanted) :]] == wanted:
        return None
    ending = ", ".join(map(str, wanted))
    return f"{_name(module)}(normalized_shape={wanted}) expects [..., {ending}], got {[*given.shape]}."


def _group_norm(module: nn.GroupNorm, given: Tensor) -> str | None:
    channels = module.num_channels
    if given.dim() >= 2 and given.shape[1] == channels:
        return None
    told = f"GroupNorm(num_channels={channels}) expects [batch, {channels}, ...], got {[*given.shape]}."
    return told + _elsewhere(channels, given, 1)


def _embedding(module: nn.Embedding | nn.EmbeddingBag, given: Tensor) -> str | None:
    count = module.num_embeddings
    layer = f"{_name(module)}(num_embeddings={count})"
    if given.dtype not in (torch.int64, torch.int32):
        return f"{layer} expects indices, int64 or int32, got {dtype_name(given.dtype)}."
    if given.device.type != "cpu" or not given.numel():  # reading it from another device would synchronize
        return None
    low, high = int(given.min()), int(given.max())
    if low >= 0 and high < count:
        return None
    return f"{layer} expects indices 0 to {count - 1}, got {low} to {high}."


def _elsewhere(wanted: int, given: Tensor, axis: int) -> str:
    """The other axes with the wanted size, if any. The first is left out, since a batch can have any size."""
    places = [place for place, size in enumerate(given.shape) if size == wanted and place != axis % given.dim()]
    places = [place for place in places if place > 0]
    if not places:
        return ""
    last = " (the last)" if places[-1] == given.dim() - 1 else ""
    return f" Axis {places[-1]}{last} is {wanted} long: is it in the wrong place?"


def _name(module: nn.Module) -> str:
    return type(module).__name__


BATCH_NORM_DIMS: dict[Any, tuple[int, ...]] = {nn.BatchNorm1d: (2, 3), nn.BatchNorm2d: (4,), nn.BatchNorm3d: (5,)}
HINTS: dict[Any, Hint] = {
    nn.Linear: _width,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    **dict.fromkeys(BATCH_NORM_DIMS, _batch_norm),
    **dict.fromkeys((nn.LayerNorm, nn.RMSNorm), _layer_norm),
    **dict.fromkeys((nn.RNN, nn.LSTM, nn.GRU), _recurrent),
    **dict.fromkeys((nn.Embedding, nn.EmbeddingBag), _embedding),
    nn.GroupNorm: _group_norm,
    nn.MultiheadAttention: _attention,
}
