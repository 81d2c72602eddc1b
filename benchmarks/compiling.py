"""What does a watch cost inside torch.compile? Compared with the same compiled model without a watch, and with hooks of
PyTorch's API that compute the same figures, which break the graph."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from timeit import Timer
from typing import Any

import torch
from torch import Tensor, nn

import hookline
from benchmarks.ratios import Row, compare

LAYERS, WIDTH, SHAPE = 2, 256, (8, 128)
BY_HAND, UNWATCHED = "hooks by hand", "without a watch"
torch._dynamo.config.skip_nnmodule_hook_guards = False  # else a model with hooks would run the graph of one without


def rows() -> list[Row]:
    """A small transformer, and a chain of functions that inductor fuses into one loop, compiled by inductor."""
    encoder = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
    transformer = nn.TransformerEncoder(encoder, LAYERS, enable_nested_tensor=False)
    chain = nn.Sequential(*(kind() for _ in range(4) for kind in (nn.GELU, nn.SiLU, nn.Tanh)))
    return [
        *of_a_forward("transformer", transformer),
        *of_a_forward("chain", chain),
        *of_a_step("transformer", transformer),
    ]


def of_a_forward(name: str, model: nn.Module) -> list[Row]:
    """A forward without gradients."""
    program = programs(model, torch.no_grad, lambda call, x: call(x))
    plain, given = program(), {"number": 5, "rounds": 15}
    what = f"{name}, forward"
    return [
        compare(f"{what}, `keep='shape'`", program(keep="shape"), UNWATCHED, plain, goal="≤", **given),
        compare(f"{what}, `keep='stats'`", program(keep="stats"), UNWATCHED, plain, goal="≤", **given),
        compare(f"{what}, `keep='stats'`", program(keep="stats"), BY_HAND, program(by_hand=True), goal="≥", **given),
    ]


def of_a_step(name: str, model: nn.Module) -> list[Row]:
    """A forward and a backward."""
    program = programs(model, ExitStack, lambda call, x: call(x).sum().backward())
    plain, given = program(), {"number": 2, "rounds": 15}
    what = f"{name}, forward + backward"
    grads = program(keep="stats", grads=True)
    return [
        compare(f"{what}, `keep='stats'`", program(keep="stats"), UNWATCHED, plain, goal="≤", **given),
        compare(f"{what}, `keep='stats', grads=True`", grads, UNWATCHED, plain, goal="≤", **given),
        compare(f"{what}, `keep='stats'`", program(keep="stats"), BY_HAND, program(by_hand=True), goal="≥", **given),
    ]


def programs(model: nn.Module, mode: Callable[[], Any], step: Callable[[Any, Tensor], Any]) -> Callable[..., Any]:
    """Makes programs that time steps of the compiled model: plain, with a watch, or with hooks by hand."""
    torch._dynamo.reset()
    x = torch.randn(*SHAPE, WIDTH)
    with_hooks = hooked(copy.deepcopy(model))
    assert torch._dynamo.explain(with_hooks)(x).graph_break_count
    bare, broken = torch.compile(model), torch.compile(with_hooks)

    def program(*, by_hand: bool = False, **watching: Any) -> Callable[[], AbstractContextManager[Timer]]:
        @contextmanager
        def timed() -> Iterator[Timer]:
            with mode(), hookline.watch(model, **watching) if watching else ExitStack():
                timer = Timer(lambda: step(broken if by_hand else bare, x))
                timer.timeit(1)  # compiles if needed
                yield timer

        return timed

    return program


def hooked(model: nn.Module) -> nn.Module:
    """The model with hooks of PyTorch's API that compute the same statistics, written by hand."""
    found: list[Any] = []

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def see(module: nn.Module, args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        value = first.detach()
        low, high = value.aminmax()
        found.append([float(each) for each in (low, high, value.mean(), value.std(), value.norm())])

    for module in model.modules():
        module.register_forward_hook(see)
    return model
