"""Modules of two models are recognized by their weights."""

import copy

import pytest
import torch
from torch import nn

from hookline.matching.twins import MOST, Print, nearest, weight_print


def prints(**modules: nn.Module) -> dict[str, Print]:
    return {name: found for name, module in modules.items() if (found := weight_print(module)) is not None}


def layers(count: int) -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(16, 16) for _ in range(count)]


def test_modules_of_the_same_weights_are_twins_in_any_order() -> None:
    a, b, c = layers(3)

    assert nearest(prints(a=a, b=b, c=c), prints(z=c, y=a, x=b)) == {"a": "y", "b": "x", "c": "z"}


def test_weights_that_are_slightly_other_are_recognized() -> None:
    a, b = layers(2)
    other = copy.deepcopy(a).bfloat16()
    with torch.no_grad():
        other.weight += 0.02 * torch.randn(16, 16)

    assert nearest(prints(a=a, b=b), prints(y=b, x=other)) == {"a": "x", "b": "y"}


def test_modules_of_unlike_weights_have_no_twin() -> None:
    a, b = layers(2)

    assert nearest(prints(a=a), prints(b=b)) == {}


def test_weights_that_several_hold_tell_nothing() -> None:
    norms = {name: nn.LayerNorm(4) for name in "ab"}

    assert nearest(prints(**norms), prints(**norms)) == {}


@pytest.mark.parametrize("shape", [(8, 8), (4, 8), (8, 4)])
def test_a_transposed_matrix_is_recognized(shape: tuple[int, int]) -> None:
    one, other = nn.Module(), nn.Module()
    one.weight = nn.Parameter(torch.randn(shape))
    other.weight = nn.Parameter(one.weight.detach().t().contiguous())

    assert nearest(prints(a=one), prints(b=other)) == {"a": "b"}


def test_a_module_without_weights_that_can_be_read_has_no_print() -> None:
    assert weight_print(nn.ReLU()) is None
    assert weight_print(nn.LazyLinear(4)) is None
    assert weight_print(nn.Linear(4, 4, device="meta")) is None


def test_the_print_of_a_container_is_of_all_in_it() -> None:
    a, b = layers(2)

    assert weight_print(nn.Sequential(a, b)) is None
    assert len(weight_print(nn.Sequential(a, b), below=True).elements) == 4 * 16


def test_of_very_many_only_the_same_are_twins() -> None:
    count = int(MOST**0.5) + 1
    table = torch.randn(count, 2, dtype=torch.float64)
    one = {f"a{row}": Print((2,), table[row]) for row in range(count)}
    other = {f"b{row}": Print((2,), table[row]) for row in reversed(range(count))}

    assert nearest(one, other) == {f"a{row}": f"b{row}" for row in range(count)}
