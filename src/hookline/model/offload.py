"""Weights that accelerate offloads, and loads into a module for each of its calls."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

HOOK, FORWARD = "_hf_hook", "_old_forward"  # attributes that accelerate sets: its hook, and the original forward

Elsewhere: TypeAlias = dict[tuple[int, str], tuple[Any, str]]  # by id of the module and name: a weights map and its key


def hooks_of(module: Module) -> list[Any]:
    """accelerate's hooks on a module, with those of a sequence one by one."""
    hook = module.__dict__.get(HOOK)
    return [] if hook is None else [*getattr(hook, "hooks", (hook,))]


def held_elsewhere(model: Module) -> Elsewhere:
    """Where accelerate holds the offloaded parameters and buffers of a model, without those that are loaded now."""
    found: Elsewhere = {}
    for module in model.modules():
        for hook in _offloading(module):
            for holder, key, name, tensor in _named(module, hook):
                if tensor.is_meta:
                    found[id(holder), name] = hook.weights_map, key
    return found


def read_elsewhere(elsewhere: Elsewhere, module: Module, name: str) -> Tensor | None:
    """A parameter or buffer of a module as accelerate holds it; None if it does not."""
    place = elsewhere.get((id(module), name))
    if place is None:
        return None
    try:
        value: Tensor = place[0][place[1]]
    except KeyError:  # accelerate fails the same way in the call
        return None
    return value


def with_data(module: Module, *, recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of a module by name, with the data of those that accelerate offloads."""
    known = held_elsewhere(module)
    for named in ("named_parameters", "named_buffers"):
        for name, tensor in getattr(module, named)(recurse=recurse):
            value = None
            if tensor.is_meta and known:
                path, _, own = name.rpartition(".")
                value = read_elsewhere(known, module.get_submodule(path), own)
            yield name, tensor if value is None else value


def without_data(model: Module) -> dict[str, Tensor]:
    """The parameters and buffers, by name, that are on the meta device and that nothing loads for a call."""
    known = held_elsewhere(model)
    held = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    found = {}
    for name, tensor in held:
        path, _, own = name.rpartition(".")
        if tensor.is_meta and (id(model.get_submodule(path)), own) not in known:
            found[name] = tensor
    return found


def without_weights(model: Module) -> Iterator[Tensor]:
    """The parameters that are on the meta device and that nothing loads for a call."""
    parameters = {id(parameter) for parameter in model.parameters()}
    return (tensor for tensor in without_data(model).values() if id(tensor) in parameters)


def updates_lost(model: Module) -> list[str]:
    """The names of buffers whose updates are lost: accelerate reads them from disk for each call, and their modules are
    in train mode."""
    known = held_elsewhere(model)
    return [
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules()
        for name, _ in (module.named_buffers(recurse=False) if module.training and known else ())
        if read_elsewhere(known, module, name) is not read_elsewhere(known, module, name)
    ]


@contextmanager
def lent(module: Module, values: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """A block in which accelerate loads these values, by name, into a module and those in it. Yields the values that
    accelerate does not load."""
    known = {id(each): path for path, each in module.named_modules()}
    left, hooks = dict(values), [(each, hook) for each in module.modules() for hook in _offloading(each)]
    before = [(hook, hook.weights_map, hook.tied_params_map, hook.tied_params_names) for _, hook in hooks]
    try:
        for each, hook in hooks:
            own = {}
            for holder, key, name, _ in _named(each, hook):
                path = f"{known.get(id(holder), '')}.{name}".lstrip(".")
                own[key] = left.pop(path) if path in left else values[path] if path in values else hook.weights_map[key]
            hook.weights_map, hook.tied_params_map, hook.tied_params_names = own, None, set()
        yield left
    finally:
        for hook, weights_map, tied, names in before:
            hook.weights_map, hook.tied_params_map, hook.tied_params_names = weights_map, tied, names


def _offloading(module: Module) -> Iterator[Any]:
    """The hooks on a module that load weights for a call."""
    for hook in hooks_of(module):
        if getattr(hook, "offload", False) and getattr(hook, "weights_map", None) is not None:
            yield hook


def _named(module: Module, hook: Any) -> Iterator[tuple[Module, str, str, Tensor]]:
    """The tensors that a hook loads: their module, key in the weights map, name, and the tensor there now."""
    recurse = bool(getattr(hook, "place_submodules", False))
    held: list[tuple[str, Tensor]] = [*module.named_parameters(recurse=recurse, remove_duplicate=False)]
    if getattr(hook, "offload_buffers", False):
        held += module.named_buffers(recurse=recurse, remove_duplicate=False)
    for key, tensor in held:
        path, _, name = key.rpartition(".")
        holder = module.get_submodule(path)
        if name not in holder._non_persistent_buffers_set:
            yield holder, key, name, tensor


def execution_devices(model: Module) -> Iterator[torch.device]:
    """The devices on which modules with offloaded weights run."""
    for module in model.modules():
        for hook in hooks_of(module):
            device = getattr(hook, "execution_device", None)
            if device is not None:
                yield torch.device(device)


def hooks_left_out(model: Module) -> dict[int, None]:
    """A memo for `copy.deepcopy` that leaves out accelerate's hooks and the weights in them."""
    return {id(hook): None for module in model.modules() if (hook := module.__dict__.get(HOOK)) is not None}


def take_own_forward(model: Module) -> None:
    """Restore the forward that each module of such a copy had before accelerate's hook."""
    for module in model.modules():
        own = module.__dict__.pop(FORWARD, None)
        module.__dict__.pop(HOOK, None)
        if own is not None and "forward" in module.__dict__:
            if getattr(own, "__func__", None) is type(module).forward:
                del module.forward
            else:
                module.forward = own
