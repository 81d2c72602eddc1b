"""Helpers for your tests: a toy model, a recorded run in one line, and an assertion that a model has no hooks."""

from typing import Any

import torch
from torch.nn import Linear, Module, ReLU, Sequential

from hookline.engine.hook_dicts import HOOK_DICTS
from hookline.engine.site import site_of
from hookline.model.paths import paths
from hookline.record.keep import Keep
from hookline.record.record import Run
from hookline.tools.watch import watch


def toy(*, seed: int = 0) -> Sequential:
    """A small model with weights from `seed`: [n, 4] in, [n, 2] out. The global random state does not change.

    >>> toy()(torch.zeros(3, 4)).shape
    torch.Size([3, 2])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Sequential(Linear(4, 8), ReLU(), Sequential(Linear(8, 8), ReLU()), Linear(8, 2))


def recorded(model: Module, *args: Any, keep: Keep = "stats", **kwargs: Any) -> Run:
    """The run of one forward of `model(*args, **kwargs)`.

    >>> len(recorded(toy(), torch.zeros(3, 4)))
    7
    """
    with watch(model, keep=keep) as run:
        model(*args, **kwargs)
    return run


def assert_unhooked(model: Module, *, torch_hooks: bool = False) -> None:
    """Raise AssertionError, naming the modules, if a hook of hookline is left on `model`; with `torch_hooks`, any hook.

    >>> assert_unhooked(toy(), torch_hooks=True)
    """
    left = [own[0] for module, own in paths(model) if site_of(module) is not None]
    if torch_hooks:
        left += [own[0] for module, own in paths(model) if any(module.__dict__.get(name) for name in HOOK_DICTS)]
    assert not left, f"hooks are left on {', '.join(path or 'the model' for path in dict.fromkeys(left))}"
