"""What does a module call cost? An identity module, compared with PyTorch's own call with the same hooks."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from timeit import Timer
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import hookline
from benchmarks.ratios import Program, Row, compare

NUMBER = 3000
X = torch.zeros(1)


class Theirs(nn.Module):
    """An identity with PyTorch's call."""

    def forward(self, x: Any) -> Any:
        """The input."""
        return x


class Ours(hookline.Module):
    """An identity with this engine's call."""

    def forward(self, x: Any) -> Any:
        """The input."""
        return x


def plain(module: nn.Module, args: Any, output: Any) -> None:
    """A forward hook that does nothing."""


def before(module: nn.Module, args: Any, kwargs: Any) -> None:
    """A forward pre-hook that does nothing."""


def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
    """A forward hook with kwargs that does nothing."""


def hook(call: hookline.Call) -> None:
    """A hook of ours that does nothing."""


Undos = list[AbstractContextManager[Any]]
Hooks = Callable[[nn.Module], Undos]


def no_hooks(module: nn.Module) -> Undos:
    return []


def one(module: nn.Module) -> Undos:
    return [module.register_forward_hook(plain)]


def two(module: nn.Module) -> Undos:
    return [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(after, with_kwargs=True, always_call=True),
    ]


def one_global(module: nn.Module) -> Undos:
    return [register_module_forward_hook(plain)]


def own_one(module: nn.Module) -> Undos:
    return [hookline.on(module, "**", after=hook)]


def own_two(module: nn.Module) -> Undos:
    return [hookline.on(module, "**", before=hook, always=hook)]


def own_everywhere(module: nn.Module) -> Undos:
    return [hookline.everywhere(after=hook)]


PYTORCHS_HOOKS = {
    "no hooks": (no_hooks, "≥2.5"),
    "one forward hook": (one, "≥5"),
    "pre + forward with kwargs, always called": (two, "≥5"),
    "one global forward hook": (one_global, "≥4"),
}
OWN_HOOKS = {
    "our own hook, after": (own_one, one, "≥5"),
    "our own hooks, before + always": (own_two, two, "≥5"),
    "our own hook, everywhere": (own_everywhere, one_global, "≥4"),
}


def rows() -> list[Row]:
    """Hooks of PyTorch's API run by our engine, then our own hooks; compared with the same hooks run by PyTorch."""
    found = []
    for what, (hooks, goal) in PYTORCHS_HOOKS.items():
        for engine, program in (
            ("hookline.Module", hooked(Ours, hooks)),
            ("install()", hooked(Theirs, hooks, install=True)),
        ):
            found.append(
                compare(f"{what}, `{engine}`", program, "PyTorch", hooked(Theirs, hooks), goal=goal, number=NUMBER)
            )
    for what, (ours, theirs, goal) in OWN_HOOKS.items():
        found.append(
            compare(what, hooked(Theirs, ours), "PyTorch's hooks", hooked(Theirs, theirs), goal=goal, number=NUMBER)
        )
    return found


def hooked(kind: type[nn.Module], hooks: Hooks, *, install: bool = False, x: torch.Tensor = X) -> Program:
    """The call on `x` of a module of this kind with these hooks, with the engine installed if `install`."""

    @contextmanager
    def program() -> Iterator[Timer]:
        with ExitStack() as stack:
            if install:
                stack.enter_context(hookline.install())
            module = kind()
            for hook in hooks(module):
                stack.enter_context(hook)
            module(x)
            yield Timer("module(x)", globals={"module": module, "x": x})

    return program
