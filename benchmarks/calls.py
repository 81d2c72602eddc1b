"""What does a module call cost? An identity module, beside PyTorch's own call with the same hooks."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from timeit import Timer
from typing import Any

import hookline
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from benchmarks.ratios import Program, Row, compare

NUMBER = 3000
X = torch.zeros(1)


class Theirs(nn.Module):
    """An identity with PyTorch's call."""

    def forward(self, x: Any) -> Any:
        """Gives what it is given."""
        return x


class Ours(hookline.Module):
    """An identity with this engine's call."""

    def forward(self, x: Any) -> Any:
        """Gives what it is given."""
        return x


def plain(module: nn.Module, args: Any, output: Any) -> None:
    """A forward hook that does nothing."""


def before(module: nn.Module, args: Any, kwargs: Any) -> None:
    """A forward-pre hook that does nothing."""


def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
    """A forward hook with kwargs that does nothing."""


def step(call: hookline.Call) -> None:
    """A step of ours that does nothing."""


Hooks = Callable[[nn.Module], list[AbstractContextManager[Any]]]
NO_HOOKS: Hooks = lambda module: []
ONE: Hooks = lambda module: [module.register_forward_hook(plain)]
TWO: Hooks = lambda module: [
    module.register_forward_pre_hook(before, with_kwargs=True),
    module.register_forward_hook(after, with_kwargs=True, always_call=True),
]
GLOBAL: Hooks = lambda module: [register_module_forward_hook(plain)]
OWN_ONE: Hooks = lambda module: [hookline.on(module, "**", after=step)]
OWN_TWO: Hooks = lambda module: [hookline.on(module, "**", before=step, always=step)]
OWN_EVERYWHERE: Hooks = lambda module: [hookline.everywhere(after=step)]

PYTORCHS_HOOKS = {
    "no hooks": (NO_HOOKS, "≥2.5"),
    "one forward hook": (ONE, "≥5"),
    "pre + forward, with kwargs, always called": (TWO, "≥5"),
    "one global forward hook": (GLOBAL, "≥4"),
}
OWN_STEPS = {
    "our own step, after": (OWN_ONE, ONE, "≥5"),
    "our own steps, before + always": (OWN_TWO, TWO, "≥5"),
    "our own step, everywhere": (OWN_EVERYWHERE, GLOBAL, "≥4"),
}


def rows() -> list[Row]:
    """Hooks of PyTorch's API run by our engine, then our own steps, each beside the same hooks run by PyTorch."""
    found = []
    for what, (hooks, wanted) in PYTORCHS_HOOKS.items():
        for height, program in (("hookline.Module", hooked(Ours, hooks)), ("install()", hooked(Theirs, hooks, install=True))):
            found.append(compare(f"{what}: {height}", program, "PyTorch", hooked(Theirs, hooks), wanted=wanted, number=NUMBER))
    for what, (ours, theirs, wanted) in OWN_STEPS.items():
        found.append(compare(what, hooked(Theirs, ours), "PyTorch's hooks", hooked(Theirs, theirs), wanted=wanted, number=NUMBER))
    return found


def hooked(kind: type[nn.Module], hooks: Hooks, *, install: bool = False) -> Program:
    """The call of a module of this kind with these hooks, under the installed engine where asked for."""

    @contextmanager
    def program() -> Iterator[Timer]:
        with ExitStack() as stack:
            if install:
                stack.enter_context(hookline.install())
            module = kind()
            for hook in hooks(module):
                stack.enter_context(hook)
            module(X)
            yield Timer("module(x)", globals={"module": module, "x": X})

    return program
