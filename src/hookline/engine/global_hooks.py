"""Notice changes of PyTorch's global hook dicts, so that plans can hold global hooks too.

The dicts become HookDicts, and the Python module that holds them gets a class that notices when a new dict is assigned.
Any change drops every plan.
"""

import importlib
from collections import OrderedDict
from types import ModuleType
from typing import Any

import torch.nn.modules.module as torch_module

from hookline.engine.hook_dicts import HookDict, Wiring, dicts_lock, drop_every_plan, is_alone
from hookline.engine.unseen import unseen

GLOBAL_HOOK_DICTS = (
    "_global_forward_pre_hooks",
    "_global_forward_hooks",
    "_global_forward_hooks_with_kwargs",
    "_global_forward_hooks_always_called",
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
)
process = vars(torch_module)


class EveryPlan(Wiring):
    """The wiring of the global dicts: a change drops the plan of every module."""

    __slots__ = ()

    def __init__(self) -> None:
        self.owner = lambda: None
        self.open = set()
        self.retired = True  # keeps no plan: a module that a global dict is assigned to has none

    @property
    def plan(self) -> None:
        """None; setting it drops every plan."""

    @plan.setter
    def plan(self, _: None) -> None:
        drop_every_plan()


class NoticesChanges(ModuleType):
    """The class of the Python module `torch.nn.modules.module` while changes of its global dicts are noticed."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in GLOBAL_HOOK_DICTS:
            drop_every_plan()

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if name in GLOBAL_HOOK_DICTS:
            drop_every_plan()

    def __reduce__(self) -> Any:
        return importlib.import_module, (self.__name__,)


@unseen
def notice_changes() -> bool:
    """Begin to notice changes of the global dicts; False if one of them cannot be replaced because something else
    refers to it (the handle of a global hook that is older than the engine)."""
    with dicts_lock:
        plain = [name for name in GLOBAL_HOOK_DICTS if type(process.get(name)) is not HookDict]
        if not all(name in process and is_alone(process, name) for name in plain):
            return False
        torch_module.__class__ = NoticesChanges
        for name in plain:
            process[name] = HookDict(EVERY_PLAN, process[name])
        return True


@unseen
def stop_noticing_changes() -> None:
    """Make the global dicts plain again. One that something else refers to stays: it does everything that PyTorch's
    does."""
    with dicts_lock:
        torch_module.__class__ = ModuleType
        for name in GLOBAL_HOOK_DICTS:
            if type(process.get(name)) is HookDict and is_alone(process, name):
                process[name] = OrderedDict(process[name])


EVERY_PLAN = EveryPlan()
