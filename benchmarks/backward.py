"""What do backward hooks cost? Compared with PyTorch's full backward hooks."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from timeit import Timer
from typing import Any

import torch
from torch import nn

import hookline
from benchmarks.calls import Hooks, Undos, hooked, no_hooks
from benchmarks.ratios import Program, Row, compare, compare_added, once_set_up
from benchmarks.watching import backward, minilm

NUMBER = 1000
DEPTH = 50
X = torch.zeros(1, requires_grad=True).exp()  # in the middle of a graph


class Copy(nn.Module):
    """An identity whose output is another tensor."""

    def forward(self, x: Any) -> Any:
        """A view of the input."""
        return x.view_as(x)


class OwnCopy(hookline.Module, Copy):
    """The same with this engine's call."""


def full(module: nn.Module, grad_input: Any, grad_output: Any) -> None:
    """A full backward hook, or a legacy one, that does nothing."""


def hook(call: hookline.Call) -> None:
    """A backward hook of ours that does nothing."""


def ours(module: nn.Module) -> Undos:
    return [hookline.on(module, "", backward=hook)]


def theirs(module: nn.Module) -> Undos:
    return [module.register_full_backward_hook(full)]


def legacy(module: nn.Module) -> Undos:
    return [module.register_backward_hook(full)]


def rows() -> list[Row]:
    """A backward hook compared with a full backward hook; a legacy hook; gradients of inputs in a whole model."""
    return [
        compare(
            "a backward hook with `grad_input`, forward part",
            hooked(Copy, ours, x=X),
            "PyTorch's full backward hook",
            hooked(Copy, theirs, x=X),
            goal="≥4",
            number=NUMBER,
        ),
        compare_added(
            f"the same, forward + backward, added by it, chain of {DEPTH} modules",
            chain(ours),
            "PyTorch's full backward hook",
            chain(theirs),
            chain(no_hooks),
            goal="≥3",
            number=20,
        ),
        whole_model(),
        compare(
            "one legacy backward hook, forward part, `hookline.Module`",
            hooked(OwnCopy, legacy, x=X),
            "PyTorch",
            hooked(Copy, legacy, x=X),
            goal="≥1.5",
            number=NUMBER,
        ),
        compare(
            "one legacy backward hook, forward part, `install()`",
            hooked(Copy, legacy, install=True, x=X),
            "PyTorch",
            hooked(Copy, legacy, x=X),
            goal="≥1.5",
            number=NUMBER,
        ),
    ]


def chain(hooks: Hooks) -> Program:
    """Forward and backward of a chain of modules with hooks on each."""

    @contextmanager
    def program() -> Iterator[Timer]:
        model = nn.Sequential(*(Copy() for _ in range(DEPTH)))
        with ExitStack() as stack:
            for hook in (hook for module in model for hook in hooks(module)):
                stack.enter_context(hook)
            x = torch.zeros(1, requires_grad=True)
            yield Timer("model(x).backward()", globals={"model": model, "x": x})

    return program


def whole_model() -> Row:
    """`watch(grads="input")` on MiniLM, compared with full backward hooks on each module that keep gradient shapes."""
    model = minilm()
    inputs = {"input_ids": torch.arange(8).reshape(1, 8) + 1000}

    def watched() -> None:
        with hookline.watch(model, keep="shape", grads="input"):
            backward(model, inputs)

    def by_hand() -> None:
        kept = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, grad_input: Any, grad_output: Any) -> None:
                kept[name] = [gradient is not None and gradient.shape for gradient in (*grad_input, *grad_output)]

            return hook

        handles = [module.register_full_backward_hook(keep(name)) for name, module in model.named_modules()]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                backward(model, inputs)
        finally:
            for handle in handles:
                handle.remove()

    return compare_added(
        '`watch(keep="shape", grads="input")`, MiniLM, 1x8, forward + backward, added by it',
        once_set_up("f()", f=watched),
        "full backward hooks by hand on every module",
        once_set_up("f()", f=by_hand),
        once_set_up("f()", f=lambda: backward(model, inputs)),
        goal="≥1",
        number=3,
    )
