"""Probabilities given to a loss that makes probabilities itself."""

from typing import Any

import pytest
import torch
from planted.parts import told
from torch import Tensor, nn
from torch.nn import functional as F

import hookline

torch.manual_seed(0)
X, LABELS = torch.randn(16, 8), torch.randint(4, (16,))
BITS = F.one_hot(LABELS, 4).float()
SOFT = torch.rand(16, 4).softmax(dim=-1)


def ends_in(last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 4), last)


WRONG = [
    (nn.Softmax(dim=-1), lambda p: F.cross_entropy(p, LABELS)),
    (nn.Softmax(dim=-1), lambda p: F.cross_entropy(p, LABELS, label_smoothing=0.1)),
    (nn.Softmax(dim=-1), lambda p: F.cross_entropy(p, SOFT)),
    (nn.Softmax(dim=-1), lambda p: F.cross_entropy(p.view(16, 4), LABELS, weight=torch.arange(1.0, 5.0))),
    (nn.Softmax(dim=-1), lambda p: F.nll_loss(p, LABELS)),
    (nn.Sigmoid(), lambda p: F.cross_entropy(p, LABELS)),
    (nn.Sigmoid(), lambda p: F.binary_cross_entropy_with_logits(p, BITS)),
]
RIGHT = [
    (nn.Identity(), lambda p: F.cross_entropy(p, LABELS)),
    (nn.LogSoftmax(dim=-1), lambda p: F.nll_loss(p, LABELS)),
    (nn.LogSoftmax(dim=-1), lambda p: F.cross_entropy(p, LABELS)),
    (nn.Softmax(dim=-1), lambda p: F.nll_loss(p.log(), LABELS)),
    (nn.Softmax(dim=-1), lambda p: (p - SOFT).square().mean()),
    (nn.Sigmoid(), lambda p: F.binary_cross_entropy(p, BITS)),
    (nn.Sigmoid(), lambda p: (p - BITS).square().mean()),
]


@pytest.mark.parametrize(("last", "loss"), WRONG)
def test_probabilities_given_to_a_loss_of_logits_are_found(last: nn.Module, loss: Any) -> None:
    assert told(hookline.check(ends_in(last), X, loss=loss), "loss-of-probabilities") == [("1", "warning")]


@pytest.mark.parametrize(("last", "loss"), RIGHT)
def test_losses_that_fit_are_fine(last: nn.Module, loss: Any) -> None:
    assert told(hookline.check(ends_in(last), X, loss=loss), "loss-of-probabilities") == []


def in_a_loop(model: nn.Module, loss: Any) -> hookline.Findings:
    with hookline.check(model) as findings:
        loss(model(X)).backward()
    return findings


@pytest.mark.parametrize(("last", "loss"), [WRONG[0], WRONG[6]])
def test_they_are_found_in_a_loop_by_the_gradient(last: nn.Module, loss: Any) -> None:
    assert told(in_a_loop(ends_in(last), loss), "loss-of-probabilities") == [("1", "warning")]


@pytest.mark.parametrize(("last", "loss"), RIGHT)
def test_losses_that_fit_are_fine_in_a_loop(last: nn.Module, loss: Any) -> None:
    assert told(in_a_loop(ends_in(last), loss), "loss-of-probabilities") == []


def test_softmax_of_the_models_own_code_is_the_models() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).softmax(dim=-1)

    findings = hookline.check(Scores(), X, loss=lambda p: F.cross_entropy(p, LABELS))
    assert told(findings, "loss-of-probabilities") == [("", "warning")]
