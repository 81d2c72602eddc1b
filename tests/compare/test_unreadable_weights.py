"""Weights that know few operations, as those of quantized models do, and weights without data."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hookline
from hookline.errors import CompareError

X = torch.linspace(-1, 1, 24).reshape(3, 8)


class Int8(Tensor):
    """A weight in 8 bits, that knows how to multiply and nothing else, not even `view`."""

    numbers: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor, scale: Tensor) -> "Int8":
        made = Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=torch.float32)
        made.numbers, made.scale = numbers, scale
        return made

    def dequantize(self) -> Tensor:
        return self.numbers.float() * self.scale

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.linear:
            x, weight, *bias = args
            return func(x, weight.dequantize(), *bias)
        return super().__torch_function__(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return cls(args[0].numbers.clone(), args[0].scale)
        raise NotImplementedError(f"no kernel for {func}")


def models() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    other = copy.deepcopy(model)
    for layer in (other[0], other[2]):
        weight = layer.weight.detach()
        scale = weight.abs().amax(1, keepdim=True) / 127
        numbers = (weight / scale).round().to(torch.int8)
        layer.weight = nn.Parameter(Int8(numbers, scale), requires_grad=False)
    return model, other


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("grads", [False, True])
def test_quantized_weights_are_compared_by_their_numbers(place: int, grads: bool) -> None:
    pair = models()

    found = hookline.diff(pair[place], pair[1 - place], X, grads=grads)

    assert [pair.path for pair in found.culprits] == ["0", "2"]
    assert found.culprit.why.startswith("weight differs: by up to 0.00")


def test_quantized_model_agrees_with_itself() -> None:
    _, model = models()

    assert not hookline.diff(model, model, X)


def test_model_partly_without_data_is_one_clear_error() -> None:
    model, _ = models()
    other = copy.deepcopy(model)
    other[2].to("meta")

    with pytest.raises(
        CompareError, match=r"2 of 4 .* of the second have no data, on the meta device: 2.weight, 2.bias"
    ):
        hookline.diff(model, other, X)


def test_summary_of_model_without_data_claims_shapes_only() -> None:
    model, _ = models()

    assert "outputs have the same shapes;" in hookline.diff(model, copy.deepcopy(model).to("meta"), X).summary
