"""Copy a model and its inputs without data: tensors have a shape, a dtype and a device, but no values."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from hookline.errors import RecordError
from hookline.model.offload import hooks_left_out, take_own_forward
from hookline.model.tensors import tensors
from hookline.torch_private import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
    is_wrapper_subclass,
)

T = TypeVar("T")
LONGEST = 160
NEED_DATA = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException)


@contextmanager
def fake_copies(model: Module, inputs: T) -> Iterator[tuple[Module, T]]:
    """A block in which nothing is computed, with copies of a model and its inputs whose tensors have no data.

    Tensors that the model creates or takes from elsewhere have no data either. Tensors on the meta device are on the
    CPU here. Raises RecordError if something cannot be copied this way, or if the model needs values.

    >>> with fake_copies(torch.nn.Linear(2, 10**9, device="meta"), torch.ones(3, 2)) as (model, x):
    ...     model(x).shape, model.weight.device
    (torch.Size([3, 1000000000]), device(type='cpu'))
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fast path may nest tensors, which have no shape without data
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield emptied_copy(model), emptied_copy(inputs)
    except NEED_DATA as error:
        where = "".join(note.partition("\n")[0] for note in getattr(error, "__notes__", ())[:1])
        message = f"the model reads values ({error.func}), but meta=True computes none; leave meta out"
        raise RecordError(f"{message} ({where.removeprefix('hookline: ')})" if where else message) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def emptied_copy(value: T) -> T:
    """A deep copy without data; RecordError that names the part that cannot be copied."""
    try:
        return _emptied_copy(value)
    except Exception as error:
        reason = shorten(f"{type(error).__name__}: {error}", LONGEST)
        message = f"{_culprit(value)} cannot be copied without data, as meta=True does ({reason}); leave meta out"
        raise RecordError(message) from error


def _emptied_copy(value: T) -> T:
    held = [*value.parameters(), *value.buffers()] if isinstance(value, Module) else []
    held += [tensor for _, tensor in tensors(value)]
    memo: dict[int, Any] = {id(tensor): emptied(tensor) for tensor in held}
    if isinstance(value, Module):
        memo |= hooks_left_out(value)
    with Emptying():
        found = copy.deepcopy(value, memo)
    if isinstance(found, Module):
        take_own_forward(found)
    return found


def _culprit(value: Any) -> str:
    """The part that cannot be copied: an attribute of a module, or the inputs."""
    modules = [*value.named_modules()] if isinstance(value, Module) else []
    for path, module in reversed(modules):
        own = {name: part for name, part in vars(module).items() if name not in ("_parameters", "_buffers", "_modules")}
        for name, part in {**module._parameters, **module._buffers, **own}.items():
            try:
                _emptied_copy(part)
            except Exception:
                return f"{name} of {path or 'the model'} ({type(module).__name__})"
    return "the model" if modules else "the inputs"


def emptied(tensor: Tensor) -> Tensor:
    """A tensor like the given one, without data."""
    if is_lazy(tensor):
        raise ValueError("it is created by the first call: call the model once before")
    device = torch.device("cpu") if tensor.is_meta else tensor.device
    try:
        empty = torch.empty_like(tensor, device=device, requires_grad=False)
    except NotImplementedError:  # a wrapper class without this operation, such as a quantized tensor
        wrapped: Any = tensor
        if not is_wrapper_subclass(wrapped):
            raise
        names, context = wrapped.__tensor_flatten__()
        parts = {name: emptied(getattr(wrapped, name)) for name in names}
        empty = type(wrapped).__tensor_unflatten__(parts, context, wrapped.shape, wrapped.stride())
    if isinstance(tensor, Parameter):
        return Parameter(empty, requires_grad=tensor.requires_grad)
    return empty.requires_grad_(tensor.requires_grad)


class Emptying(TorchFunctionMode):
    """A block in which every deep copy of a tensor has no data, including those in attributes and lists."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace the deep copy of a tensor."""
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = emptied(tensor)
        return memo[id(tensor)]
