"""What does a watch cost inside of torch.compile, beside the same compiled model without one, and beside hooks of
PyTorch's API, which break its graph?"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from timeit import Timer
from typing import Any

import torch
from torch import Tensor, nn

import hookline
from benchmarks.ratios import Row, compare

LAYERS, WIDTH, SHAPE = 4, 256, (8, 128)


def rows() -> list[Row]:
    """A small transformer, compiled by inductor, forward and backward."""
    encoder = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(encoder, LAYERS, enable_nested_tensor=False)
    x = torch.randn(*SHAPE, WIDTH)
    compiled = torch.compile(model)
    plain = stepping(compiled, x)

    def watched(keep: Any, grads: bool) -> Callable[[], AbstractContextManager[Timer]]:
        return stepping(compiled, x, lambda: hookline.watch(model, keep=keep, grads=grads))

    given = {"number": 1, "rounds": 15}
    return [
        compare("watch(keep='shape')", watched("shape", False), "none", plain, wanted="≤", **given),
        compare("watch(keep='stats')", watched("stats", False), "none", plain, wanted="≤", **given),
        compare("watch(keep='stats', grads=True)", watched("stats", True), "none", plain, wanted="≤", **given),
        compare(
            "watch(keep='stats')",
            watched("stats", False),
            "forward hooks that take the same, with graph breaks",
            stepping(compiled, x, lambda: hooked(model)),
            wanted="≥",
            **given,
        ),
    ]


def stepping(
    compiled: Any, x: Tensor, block: Callable[[], AbstractContextManager[Any]] | None = None
) -> Callable[[], AbstractContextManager[Timer]]:
    """A program that times steps of a compiled model, inside of a block."""

    def step() -> None:
        compiled(x).sum().backward()

    @contextmanager
    def program() -> Iterator[Timer]:
        with block() if block else contextmanager(lambda: iter([None]))():
            step()  # compiles where that is to be done
            yield Timer(step)

    return program


@contextmanager
def hooked(model: nn.Module) -> Iterator[None]:
    """The same statistics by hooks of PyTorch's API, as one writes them by hand."""
    found: list[Any] = []

    def see(module: nn.Module, args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        value = first.detach()
        low, high = value.aminmax()
        found.append([float(each) for each in (low, high, value.mean(), value.std(), value.norm())])

    handles = [module.register_forward_hook(see) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
