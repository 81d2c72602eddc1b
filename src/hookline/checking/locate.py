"""Locate NaN and Inf in the tensors of the first broken call."""

import inspect
from contextlib import suppress
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookline.engine.call import Call
from hookline.record.finite import bounds_of, can_be_unfinite, waits
from hookline.record.spots import Spots, masks_in, spots
from hookline.record.statistics import fetch

Key: TypeAlias = tuple[str, int, int | str]  # a call by path and index; which output, or the name of the argument


@dataclass(slots=True)
class Locator:
    """The spots found so far: those of the first outermost call with NaN or Inf."""

    found: dict[Key, Spots] = field(default_factory=dict)
    waiting: dict[Key, Spots] = field(default_factory=dict)
    done: bool = False

    def see(self, key: Key, tensor: Tensor, call: Call) -> None:
        """Look at a tensor: at once on the CPU, at the end of the outermost call on any other device."""
        if self.done or not can_be_unfinite(tensor):
            return
        if waits(tensor):
            found = spots(tensor, masks_in(_arguments(call), tuple(tensor.shape)))
            if found is not None:
                self.waiting[key] = found
            return
        bounds = bounds_of(tensor)
        if bounds is None or all(isfinite(float(bound)) for bound in bounds):
            return
        found = spots(tensor, masks_in(_arguments(call), tuple(tensor.shape)))
        if found is not None:
            self.found[key] = found

    def end(self) -> None:
        """After an outermost call: read what waits on a device, and stop if something was found."""
        waiting, self.waiting = self.waiting, {}
        by_device: dict[torch.device, dict[Key, Spots]] = {}
        for key, each in waiting.items():
            by_device.setdefault(each.amount.device, {})[key] = each
        for device, own in by_device.items():
            amounts = fetch(device, [each.amount for each in own.values()])
            self.found |= {key: own[key] for key, amount in zip(own, amounts, strict=True) if amount}
        self.done = bool(self.found)


def _arguments(call: Call) -> dict[str, Any]:
    """The arguments of a call and of those around it, by name; nearer calls take precedence."""
    found: dict[str, Any] = {}
    for each in (call, *call.around()):
        names: list[str] = []
        with suppress(TypeError, ValueError):  # a forward without a signature
            names = [*inspect.signature(each.module.forward).parameters]
        names += [f"argument {number}" for number in range(len(names), len(each.args))]
        found = {**dict(zip(names, each.args, strict=False)), **each.kwargs, **found}
    return found
