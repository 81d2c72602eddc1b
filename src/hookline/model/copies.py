"""Copies of values with their tensors: what one run changes in place the next is not to see."""

import copy
from typing import Any, cast

from torch import Tensor

from hookline.model.keypath import as_arguments, named
from hookline.model.tensors import tensors


def copied(value: Any) -> Any:
    """A value with copies of its tensors, that require gradients as these do and are leaves; what is shared in it is
    shared in the copy.

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
    """Copies of the (args, kwargs) of a call; where they do not let themselves be copied whole, of their tensors."""
    try:
        return cast("tuple[tuple[Any, ...], dict[str, Any]]", copied(arguments))
    except Exception:  # what does not let itself be copied is shared, but for the tensors
        given = {key: _cloned(part) for key, part in named(*arguments).items()}
        return as_arguments(given)


def _cloned(part: Any) -> Any:
    return part.detach().clone() if isinstance(part, Tensor) else part
