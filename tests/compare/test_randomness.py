"""Random numbers in evaluation, which one random state for both models hides."""

import torch
from torch import Tensor, nn
from torch.nn import functional

import hookline
from hookline.testing import assert_unhooked


class Drops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.5)


class Asks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.5, training=self.training)


X = torch.ones(3, 4)


def test_dropout_without_the_mode_is_noted() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Drops()).eval()

    found = hookline.diff(model, model, X)

    assert not found
    assert [note.partition(";")[0] for note in found.notes] == [
        f"the {which} draws random numbers in evaluation, in 1: `functional.dropout(x, 0.5)` drops values in evaluation too"
        for which in ("first", "second")
    ]
    assert_unhooked(model)


def test_dropout_that_asks_for_the_mode_is_not_noted() -> None:
    model = nn.Sequential(Asks(), nn.Dropout())

    assert hookline.diff(model.eval(), model, X).notes == ()
    assert hookline.diff(model.train(), model, X).notes == ()


def test_only_the_model_that_draws_is_noted() -> None:
    found = hookline.diff(nn.Sequential(Asks()).eval(), nn.Sequential(Drops()).eval(), X)

    assert found.culprit.path == "0"
    assert [note.partition(" draws")[0] for note in found.notes] == ["the second"]
