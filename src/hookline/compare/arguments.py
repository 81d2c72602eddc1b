"""Adapt the arguments of a reference's call to a partner that is called in another way."""

import inspect
from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from hookline.model.copies import copied_arguments
from hookline.model.keypath import as_arguments, named
from hookline.model.tensors import SCALARS, exchange, leaves, tensors
from hookline.record.record import CallRecord, TensorInfo

Arguments: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def adapted(arguments: Arguments, record: CallRecord) -> Arguments:
    """The arguments of the reference's call as the partner was called: by its names, in its dtypes, on its devices."""
    given = named(*arguments)
    wanted = named(record.args, record.kwargs)
    if given.keys() == wanted.keys():
        infos = [info for _, info in leaves(wanted, kind=TensorInfo)]
        found = [tensor for _, tensor in tensors(given)]
        fitting = dict(zip(map(id, found), infos, strict=True)) if len(found) == len(infos) else {}
        exchange(given, lambda tensor: _fitted(tensor, fitting.get(id(tensor))), [])
        return as_arguments(given)
    left = iter([tensor for _, tensor in tensors(given)])
    return as_arguments({key: _filled(part, left) for key, part in wanted.items()})


def _filled(part: Any, left: Any) -> Any:
    """A recorded argument, with the next tensors instead of recorded ones; TypeError if it was not kept whole."""
    if isinstance(part, TensorInfo):
        tensor = next(left, None)
        if tensor is None or tuple(tensor.shape) != tuple(part.shape):
            raise TypeError("the partner receives other tensors")
        return _fitted(tensor, part)
    if isinstance(part, SCALARS):
        return part
    if type(part) in (tuple, list):
        return type(part)(_filled(each, left) for each in part)
    raise TypeError(f"the partner receives {part!r}, which was not kept")


def _fitted(tensor: Tensor, info: TensorInfo | None) -> Tensor:
    if info is None or tensor.is_floating_point() != info.dtype.is_floating_point:
        return tensor
    return tensor.to(info.device, info.dtype)


def rounded(arguments: Arguments, record: CallRecord) -> Arguments | None:
    """The arguments, rounded to the dtypes of the partner's arguments and cast back; None if nothing is lost."""
    given = named(*copied_arguments(arguments))
    wanted = [info.dtype for _, info in leaves(named(record.args, record.kwargs), kind=TensorInfo)]
    found = [tensor for _, tensor in tensors(given)]
    fewer = {id(one): dtype for one, dtype in zip(found, wanted, strict=False) if _is_narrower(dtype, one.dtype)}
    if len(wanted) != len(found) or not fewer:
        return None

    def there_and_back(tensor: Tensor) -> Tensor:
        return tensor.to(fewer[id(tensor)]).to(tensor.dtype) if id(tensor) in fewer else tensor

    exchange(given, there_and_back, [])
    return as_arguments(given)


def _is_narrower(one: torch.dtype, other: torch.dtype) -> bool:
    both = one.is_floating_point and other.is_floating_point
    return both and torch.finfo(one).eps > torch.finfo(other).eps


# By the names in the signatures


def in_full(arguments: Arguments, ours: Module, theirs: Module, record: CallRecord) -> Arguments | None:
    """All arguments of the reference's call by the names in the partner's signature: also those that the partner's
    caller left out, and none that it added. None if the partner is called in the same way, or does not accept them."""
    if named(*arguments).keys() == named(record.args, record.kwargs).keys():
        return None
    try:
        left = _by_name(arguments, ours)
        accepted = inspect.signature(theirs.forward).parameters
    except (TypeError, ValueError):
        return None
    given = {name: left.pop(name) for name in accepted if name in left}
    for name, parameter in accepted.items():
        needed = parameter.default is parameter.empty and parameter.kind not in VARIABLE
        if needed and name not in given and left:
            given[name] = left.pop(next(iter(left)))
    positional = [name for name, each in accepted.items() if each.kind is each.POSITIONAL_ONLY]
    if any(part is not None for part in left.values()) or positional:
        return None
    infos = [info for _, info in leaves(named(record.args, record.kwargs), kind=TensorInfo)]
    floating = next((info for info in infos if info.dtype.is_floating_point), None)
    fitting = floating or next(iter(infos), None)
    exchange(given, lambda tensor: _fitted(tensor, fitting), [])
    return (), given


def _by_name(arguments: Arguments, module: Module) -> dict[str, Any]:
    """The arguments of a call by the names in the module's signature; TypeError if some are in its `*args`."""
    signature = inspect.signature(module.forward)
    bound = signature.bind(*arguments[0], **arguments[1]).arguments
    found: dict[str, Any] = {}
    for name, part in bound.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            raise TypeError(f"the arguments in *{name} have no names")
        found |= part if kind is inspect.Parameter.VAR_KEYWORD else {name: part}
    return found


def argument_names(module: Module | None) -> list[str]:
    """The names of the positional arguments of a module's forward; empty if its signature is not known."""
    if module is None:
        return []
    try:
        parameters: Iterable[inspect.Parameter] = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [each.name for each in parameters if each.kind not in VARIABLE]
