"""Copies without data: nothing is computed, nothing is held, whatever the model takes its tensors from."""

import pytest
import torch
from torch import nn

import hookline
from hookline import RecordError
from hookline.model.fake import fake_copies

X = torch.ones(3, 8)
ELSEWHERE = torch.ones(8)


class Holds(nn.Module):
    """Tensors that are neither parameters nor buffers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.plain, self.listed, self.named = torch.ones(8), [torch.ones(8)], {"a": (torch.ones(8),)}
        self.closed = lambda x: x * ELSEWHERE

    def forward(self, x):
        self.plain += 1
        x = self.layer(x) * self.plain + self.listed[0] + self.named["a"][0]
        return self.closed(x) + torch.arange(8) + torch.ones(8, device=x.device)


@pytest.mark.slow
def test_a_model_that_holds_plain_tensors_counts_what_it_does_with_data():
    model = Holds()
    real, counted = hookline.profile(model, X, repeat=1), hookline.profile(model, X, meta=True)
    assert [cost.flops for cost in counted] == [cost.flops for cost in real]
    assert [cost.kept for cost in counted] == [cost.kept for cost in real]


def test_the_models_own_tensors_are_left_alone():
    model = Holds()
    hookline.profile(model, X, meta=True)
    assert model.plain.tolist() == [1] * 8
    assert type(model.plain) is torch.Tensor


def test_a_model_on_the_meta_device_may_make_tensors_on_the_cpu():
    with torch.device("meta"):
        model = Holds()
    assert hookline.profile(model, X).total.flops == 2 * 3 * 8 * 8


def test_copies_share_what_the_originals_share():
    layer = nn.Linear(8, 8)
    with fake_copies(nn.Sequential(layer, layer), [X, X]) as (model, inputs):
        assert model[0].weight is model[1].weight
        assert inputs[0] is inputs[1]


@pytest.mark.slow
def test_gradients_of_a_module_of_several_outputs_are_in_its_backward():
    real, counted = (hookline.profile(nn.Sequential(nn.LSTM(8, 4)), X, repeat=1, meta=meta) for meta in (False, True))
    assert counted["0"].backward_flops == real["0"].backward_flops > 0


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda x: x if x.sum().item() > 0 else -x, "_local_scalar_dense"),
        (lambda x: x[x > 0], "nonzero"),
    ],
)
def test_a_model_that_asks_for_numbers_is_told_of_with_its_module(ask, what):
    class Asks(nn.Module):
        def forward(self, x):
            return ask(x)

    with pytest.raises(RecordError, match=f"reads values .*{what}") as caught:
        hookline.profile(nn.Sequential(nn.Linear(8, 8), Asks()), X, meta=True)
    assert "in 1 (Asks, call 0)" in str(caught.value)


@pytest.mark.slow
def test_what_cannot_be_copied_is_named_with_its_module():
    class Stubborn:
        def __deepcopy__(self, memo):
            raise TypeError("not to be copied")

    model = nn.Sequential(nn.Linear(8, 8))
    model[0].helper = Stubborn()
    with pytest.raises(RecordError, match=r"helper of 0 \(Linear\) cannot be copied .*not to be copied"):
        hookline.profile(model, X, meta=True)


def test_a_parameter_that_the_first_call_makes_is_named():
    with pytest.raises(RecordError, match=r"weight of 0 \(LazyLinear\) .* call the model once before"):
        hookline.profile(nn.Sequential(nn.LazyLinear(8)), X, meta=True)


@pytest.mark.slow
def test_the_fast_path_of_transformers_is_afterwards_what_it_was():
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True)
    model = nn.TransformerEncoder(layer, 1).eval()
    padding = torch.tensor([[False, False, True]])
    counted = hookline.profile(model, X[None], src_key_padding_mask=padding, meta=True, backward=False)
    assert counted.total.flops > 0
    assert torch.backends.mha.get_fastpath_enabled()
