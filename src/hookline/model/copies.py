"""Copy values with their tensors, so that in-place changes of one run do not reach the next."""

import copy
from typing import Any, cast

from torch import Tensor

from hookline.model.keypath import as_arguments, named
from hookline.model.tensors import tensors


def copied(value: Any) -> Any:
    """A copy of a value with copies of its tensors, which are leaves and require gradients as the originals do. Objects
    that are shared in the value are shared in the copy.

    >>> import torch
    >>> x = torch.ones(2, requires_grad=True) * 2
    >>> (one, other), _ = copied(((x, x), None))
    >>> one is other, one is x, one.requires_grad, one.is_leaf
    (True, False, True, True)
    """
    memo: dict[int, Any] = {}
    for _, tensor in tensors(value):
        if id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().clone().requires_grad_(tensor.requires_grad)
    return copy.deepcopy(value, memo)


def copied_arguments(arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A copy of the (args, kwargs) of a call; of their tensors only, if the rest cannot be copied."""
    try:
        return cast("tuple[tuple[Any, ...], dict[str, Any]]", copied(arguments))
    except Exception:  # objects that cannot be copied are shared
        given = {key: _cloned(part) for key, part in named(*arguments).items()}
        return as_arguments(given)


def _cloned(part: Any) -> Any:
    return part.detach().clone() if isinstance(part, Tensor) else part
