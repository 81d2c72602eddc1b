"""Weights that accelerate holds elsewhere, and brings into a module for each of its calls."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

HOOK, FORWARD = "_hf_hook", "_old_forward"  # what accelerate puts on a module: its hook, and the forward before it


def hooks_of(module: Module) -> list[Any]:
    """accelerate's hooks on a module: those of a sequence one by one."""
    hook = module.__dict__.get(HOOK)
    return [] if hook is None else [*getattr(hook, "hooks", (hook,))]


def without_weights(model: Module) -> Iterator[Tensor]:
    """The parameters that are on the meta device, and that nothing brings in for a call."""
    brought = set()
    for module in model.modules():
        for hook in hooks_of(module):
            if getattr(hook, "offload", False):
                recurse = bool(getattr(hook, "place_submodules", False))
                brought |= {id(parameter) for parameter in module.parameters(recurse=recurse)}
    return (parameter for parameter in model.parameters() if parameter.is_meta and id(parameter) not in brought)


def execution_devices(model: Module) -> Iterator[torch.device]:
    """The devices on which modules run whose weights are brought in."""
    for module in model.modules():
        for hook in hooks_of(module):
            device = getattr(hook, "execution_device", None)
            if device is not None:
                yield torch.device(device)


def hooks_left_out(model: Module) -> dict[int, None]:
    """A memo for `copy.deepcopy` by which a copy has none of accelerate's hooks, nor the weights in them."""
    return {id(hook): None for module in model.modules() if (hook := module.__dict__.get(HOOK)) is not None}


def take_own_forward(model: Module) -> None:
    """Let each module of such a copy have the forward that it had before accelerate's hook."""
    for module in model.modules():
        own = module.__dict__.pop(FORWARD, None)
        module.__dict__.pop(HOOK, None)
        if own is not None and "forward" in module.__dict__:
            if getattr(own, "__func__", None) is type(module).forward:
                del module.forward
            else:
                module.forward = own
