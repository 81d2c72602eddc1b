"""Fit the inputs to a model: cast them to its dtype and move them to its device."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from hookline.errors import CompareError
from hookline.messages import dtype_name, few
from hookline.model.copies import copied_arguments
from hookline.model.keypath import as_arguments, named
from hookline.model.offload import execution_devices, without_data
from hookline.model.tensors import exchange, tensors

Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
COMPUTED_IN = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


def fitted(inputs: Inputs, model: Module) -> tuple[Inputs, str]:
    """The inputs with floats in the dtype of the model's floating parameters and all tensors on their device, if these
    have a single one, copied where they change; and what was changed, in words.

    >>> (args, _), told = fitted(((torch.ones(2), torch.arange(2)), {}), torch.nn.Linear(2, 2).bfloat16())
    >>> args[0].dtype, args[1].dtype, told
    (torch.bfloat16, torch.int64, 'float32 cast to bfloat16')
    """
    dtype, device = _single(model)
    told = [text for _, tensor in tensors(named(*inputs)) for text in _changes(tensor, dtype, device)]
    if not told:
        return inputs, ""
    given = named(*copied_arguments(inputs))
    made: dict[int, Tensor] = {}

    def fit(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            other = tensor.detach().to(device or tensor.device, _dtype_for(tensor, dtype))
            made[id(tensor)] = other.requires_grad_(tensor.requires_grad)
        return made[id(tensor)]

    exchange(given, fit, [])
    return as_arguments(given), ", ".join(dict.fromkeys(told))


@contextmanager
def missing_data_named(a: Module, b: Module) -> Iterator[None]:
    """A block whose errors become a CompareError if some parameters or buffers of a model have no data, on the meta
    device, and others have. Hooks may load them when the model is called, so only an error shows that they are
    missing."""
    try:
        yield
    except CompareError:
        raise
    except Exception as error:
        for model, which in ((a, "first"), (b, "second")):
            told = partly_meta(model, which)
            if told:
                raise CompareError(f"{told}; load them, or put the whole model there to compare shapes") from error
        raise


def partly_meta(model: Module, which: str) -> str:
    """Which parameters and buffers of a model have no data while others have; "" if all or none have. Those that
    accelerate loads for a call count as having data."""
    held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    empty = [name for name in without_data(model) if name in held]
    if not empty or len(empty) == len(held):
        return ""
    what = f"{len(empty)} of {len(held)} parameters and buffers of the {which}"
    return f"{what} have no data, on the meta device: {few(empty)}"


def _changes(tensor: Tensor, dtype: torch.dtype | None, device: torch.device | None) -> list[str]:
    wanted = _dtype_for(tensor, dtype)
    cast = f"{dtype_name(tensor.dtype)} cast to {dtype_name(wanted)}" if wanted != tensor.dtype else ""
    moved = f"moved from {tensor.device} to {device}" if device not in (None, tensor.device) else ""
    return [text for text in (cast, moved) if text]


def _dtype_for(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.dtype in COMPUTED_IN else tensor.dtype


def _single(model: Module) -> tuple[torch.dtype | None, torch.device | None]:
    """The single dtype and the single device of a model's floating parameters; None if there are several."""
    held = [parameter for parameter in model.parameters() if not is_lazy(parameter)]
    dtypes = {parameter.dtype for parameter in held if parameter.is_floating_point()}
    moving = any(True for _ in execution_devices(model))  # accelerate takes the inputs where each module runs
    devices = set() if moving else {parameter.device for parameter in held}
    dtype = dtypes.pop() if len(dtypes) == 1 else None
    device = devices.pop() if len(devices) == 1 else None
    return dtype if dtype in COMPUTED_IN else None, device
