"""Layers that a model does not know of, and weights without any variety."""

import dataclasses
from collections import deque
from functools import partial
from typing import Any

import pytest
import torch
from planted.parts import X, told
from torch import Tensor, nn

import hookline


@dataclasses.dataclass
class Pair:
    left: nn.Module


class Holds(nn.Module):
    """A module with something among its attributes, and a function that uses it."""

    def __init__(self, held: Any, use: Any) -> None:
        super().__init__()
        self.held, self.use, self.head = held, use, nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.use(self.held, x))


@pytest.mark.parametrize(
    ("hold", "use"),
    [
        (lambda layer: [layer], lambda held, x: held[0](x)),
        (lambda layer: (layer,), lambda held, x: held[0](x)),
        (lambda layer: {"a": {"b": [layer]}}, lambda held, x: held["a"]["b"][0](x)),
        (lambda layer: {layer}, lambda held, x: next(iter(held))(x)),
        (lambda layer: deque([layer]), lambda held, x: held[0](x)),
        (lambda layer: Pair(layer), lambda held, x: held.left(x)),
        (lambda layer: partial(layer.forward.__func__, layer), lambda held, x: held(x)),
        (lambda layer: [layer.weight], lambda held, x: x @ held[0]),
    ],
)
def test_what_stands_in_a_plain_container_is_found(hold: Any, use: Any) -> None:
    layer = nn.Linear(4, 4)

    assert told(hookline.check(Holds(hold(layer), use), X), "unregistered") == [("", "warning")]
    assert layer.weight.grad is None


def test_layers_that_the_model_knows_elsewhere_are_fine() -> None:
    layer = nn.Linear(4, 4)
    model = Holds([layer], lambda held, x: held[0](x))
    model.layer = layer

    assert told(hookline.check(model, X), "unregistered") == []


def test_teacher_without_gradients_in_a_list_is_a_note() -> None:
    model = Holds([nn.Linear(4, 4)], lambda held, x: x + held[0](x).detach())

    assert told(hookline.check(model, X), "unregistered") == [("", "note")]


def test_list_that_leads_back_to_the_model_is_fine() -> None:
    model = Holds([], lambda held, x: x)
    outer = nn.Sequential(model, nn.Linear(4, 4))
    model.held.append(outer)

    assert told(hookline.check(model, X), "unregistered") == []


@pytest.mark.parametrize("init", [nn.init.ones_, lambda weight: weight.data.copy_(torch.randn(4).expand(8, 4))])
@pytest.mark.parametrize("make", [lambda: nn.Linear(4, 8), lambda: nn.Embedding(8, 4)])
def test_rows_that_are_all_equal_are_found(make: Any, init: Any) -> None:
    layer = make()
    init(layer.weight)
    given = X if isinstance(layer, nn.Linear) else torch.arange(8)

    assert told(hookline.check(layer, given), "alike-rows") == [("", "warning")]


def test_rows_of_one_number_each_are_found() -> None:
    layer = nn.Linear(4, 8)
    layer.weight.data.copy_(torch.randn(8, 1).expand(8, 4))

    assert told(hookline.check(layer, X), "alike-rows") == [("", "warning")]


@pytest.mark.parametrize("spoil", [nn.init.zeros_, lambda weight: nn.init.ones_(weight).requires_grad_(False)])
def test_zeros_and_frozen_weights_may_be_alike(spoil: Any) -> None:
    layer = nn.Linear(4, 8)
    spoil(layer.weight)

    assert told(hookline.check(layer, X), "alike-rows") == []


def test_blur_of_each_channel_may_be_alike() -> None:
    layer = nn.Conv2d(4, 4, 3, groups=4)
    nn.init.constant_(layer.weight, 1 / 9)

    assert told(hookline.check(layer, torch.randn(2, 4, 6, 6)), "alike-rows") == []
