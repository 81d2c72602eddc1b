"""The buffers that a forward updates are compared as they are after it."""

import copy

import pytest
import torch
from torch import Tensor, nn

import hookline

torch.manual_seed(0)
X = torch.randn(6, 4)


def normed() -> tuple[nn.Sequential, nn.Sequential]:
    """A model with a BatchNorm in training, twice."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())
    return model, copy.deepcopy(model)


def with_another_momentum() -> tuple[nn.Sequential, nn.Sequential]:
    model, other = normed()
    other[1].momentum = 0.2
    return model, other


def test_running_statistics_updated_differently_differ() -> None:
    found = hookline.diff(*with_another_momentum(), X)

    assert found
    assert not found.identical
    assert [pair.path for pair in found if pair.differs] == ["1"]
    assert {name: part.differs for name, part in found["1"].buffers.items()} == {
        **{"running_mean": True, "running_var": True, "num_batches_tracked": False}
    }
    assert not found["1"].output_differs
    assert found.first is found.culprit is found["1"]
    assert found.culprit.why == "momentum 0.1 vs 0.2"


@pytest.mark.parametrize("keep", ["stats", "tensor", hookline.fingerprint], ids=["stats", "tensor", "fingerprint"])
def test_less_can_be_kept_of_buffers_too(keep: object) -> None:
    assert hookline.diff(*with_another_momentum(), X, keep=keep).culprit.path == "1"


def test_buffers_that_were_updated_alike_are_none() -> None:
    found = hookline.diff(*normed(), X)

    assert not found
    assert found.identical
    assert len(found["1"].buffers) == 3


def test_buffers_that_no_forward_updates_are_left_to_the_weights() -> None:
    model, other = with_another_momentum()
    other[1].running_mean += 1

    found = hookline.diff(model.eval(), other.eval(), X)

    assert found["1"].buffers == {}
    assert [weight.name_a for weight in found.weights] == ["1.running_mean"]


def test_both_models_are_left_as_they_were() -> None:
    models = with_another_momentum()

    hookline.diff(*models, X, grads=True)

    for model in models:
        assert torch.equal(model[1].running_mean, torch.zeros(4))
        assert model[1].num_batches_tracked == 0


def test_buffers_after_other_inputs_are_passed_on() -> None:
    model, other = normed()
    with torch.no_grad():
        other[0].bias += 1

    found = hookline.diff(model, other, X)

    assert found["1"].buffers_differ
    assert found["1"].is_culprit is None
    assert [pair.path for pair in found.culprits] == ["0"]


class Counts(nn.Module):
    """Counts its calls in a buffer, in place or in a new tensor, of a module that is not called itself."""

    def __init__(self, by: int, *, anew: bool) -> None:
        super().__init__()
        self.by, self.anew, self.inner = by, anew, nn.Module()
        self.inner.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.anew:
            self.inner.count = self.inner.count + self.by
        else:
            self.inner.count += self.by
        return x


@pytest.mark.parametrize("anew", [True, False], ids=["a new tensor", "in place"])
def test_buffer_of_uncalled_module_is_listed_at_its_caller(anew: bool) -> None:
    model, other = (nn.Sequential(Counts(by, anew=anew)) for by in (1, 2))

    found = hookline.diff(model, other, X)

    assert list(found["0"].buffers) == ["inner.count"]
    assert found.culprit.path == "0"
    assert found.culprit.why == "by 1 vs 2"
    assert model[0].inner.count == other[0].inner.count == 0


def test_buffer_updated_by_one_model_is_compared() -> None:
    found = hookline.diff(Counts(0, anew=False), Counts(3, anew=False), X)

    assert found[""].buffers["inner.count"].absolute == 3


def test_the_code_that_updates_buffers_otherwise_is_said_to() -> None:
    class Fast(nn.BatchNorm1d):
        def forward(self, x: Tensor) -> Tensor:
            found = super().forward(x)
            self.running_mean += 1
            return found

    model, other = normed()
    Fast.__name__ = "BatchNorm1d"
    other[1].__class__ = Fast

    found = hookline.diff(model, other, X)

    assert found.culprit.why == "with the same inputs and the same weights, its code updates its buffers differently"


def test_buffers_are_saved_with_the_rest(tmp_path: object) -> None:
    found = hookline.diff(*with_another_momentum(), X)
    found.save(f"{tmp_path}/diff")

    assert hookline.load(f"{tmp_path}/diff").pairs == found.pairs
