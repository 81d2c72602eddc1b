"""Random numbers drawn in evaluation, on purpose or by a dropout that is not told the mode."""

from typing import Any

import pytest
import torch
from planted.parts import told
from torch import Tensor, nn
from torch.nn import functional as F

import hookline

X = torch.randn(8, 4)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)


class Forgets(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.linear(x), p=0.5)


class Attends(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x[None], x[None], self.linear(x)[None], dropout_p=0.5)


class Passes(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.linear(x), 0.5, training=self.training)


class PassesByPlace(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.linear(x), 0.5, self.training)


class Means(Base):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.linear(x), 0.5, training=True)


class Samples(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + torch.randn(4)


@pytest.mark.parametrize(
    ("kind", "severity"),
    [
        (Forgets, "warning"),
        (Attends, "warning"),
        (Passes, None),
        (PassesByPlace, None),
        (Means, "note"),
        (Samples, "note"),
    ],
)
def test_draws_in_evaluation(kind: Any, severity: str | None) -> None:
    findings = hookline.check(nn.Sequential(nn.Identity(), kind()).eval(), X)

    assert told(findings, "random-in-evaluation") == ([("1", severity)] if severity else [])


@pytest.mark.parametrize("kind", [Forgets, Samples])
def test_draws_in_training_are_fine(kind: Any) -> None:
    assert told(hookline.check(nn.Sequential(kind()), X), "random-in-evaluation") == []


def test_dropout_module_in_training_is_for_another_rule() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).eval()
    model[1].train()
    findings = hookline.check(model, X)

    assert told(findings, "random-in-evaluation") == []
    assert told(findings, "wrong-mode") == [("1", "note")]


def test_generator_stands_where_it_would_without_a_check() -> None:
    model = Samples().eval()
    torch.manual_seed(0)
    model(X)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    with hookline.check(model):
        model(X)

    assert torch.equal(torch.get_rng_state(), after)
