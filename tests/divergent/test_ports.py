"""A port of GPT-2 in the style of nanoGPT: a correct one agrees, a wrong one is named with its reason."""

import copy

import pytest
import torch
from torch import Tensor, nn

import hookline
from divergent.gpt import gpts

pytest.importorskip("transformers")


@pytest.mark.parametrize("flat", [False, True], ids=["batch", "flattened"])
def test_correct_port_agrees(flat: bool) -> None:
    model, port, ids = gpts(flat=flat)

    for one, other in ((model, port), (port, model)):
        found = hookline.diff(one, other, ids)

        assert not found
        assert found.outputs_agree
        assert found.first is None
        assert "outputs agree; no difference in 23 calls" in found.summary


@pytest.mark.parametrize("keep", ["stats", hookline.fingerprint], ids=["stats", "fingerprint"])
def test_correct_port_agrees_by_less_than_its_elements(keep: object) -> None:
    model, port, ids = gpts(flat=True)

    assert not hookline.diff(model, port, ids, keep=keep)


class Generates(nn.Module):
    """The logits of the last of three steps, with or without a cache."""

    def __init__(self, model: nn.Module, *, cache: bool) -> None:
        super().__init__()
        self.model, self.cache = model, cache

    def forward(self, ids: Tensor) -> Tensor:
        past, given = None, ids
        for _ in range(3):
            out = self.model(given, past_key_values=past, use_cache=self.cache)
            token = out.logits[:, -1:].argmax(-1)
            ids = torch.cat([ids, token], 1)
            past, given = (out.past_key_values, token) if self.cache else (None, ids)
        return out.logits[:, -1]


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")
def test_calls_of_cached_generation_are_set_apart() -> None:
    model, _, ids = gpts()

    found = hookline.diff(Generates(model, cache=False), Generates(model, cache=True), ids)

    assert not found
    assert {pair.index for pair in found.apart} == {1, 2}
    assert not any(pair.differs for pair in found.apart)
    assert "called with other shapes, not compared: model (shape" in repr(found)


def test_calls_of_another_number_are_listed() -> None:
    class Repeats(nn.Module):
        def __init__(self, layer: nn.Module, count: int) -> None:
            super().__init__()
            self.layer, self.count = layer, count

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(self.count):
                self.layer(x)
            return x

    layer = nn.Linear(4, 4)
    found = hookline.diff(Repeats(layer, 3), Repeats(layer, 1), torch.randn(2, 4))

    assert not found
    assert "the first calls more often: layer" in repr(found)


def test_models_own_outputs_of_another_shape_differ() -> None:
    model = nn.Linear(4, 1)
    other = nn.Sequential(copy.deepcopy(model), nn.Flatten(0))

    found = hookline.diff(nn.Sequential(model), other, torch.randn(3, 4))

    assert found
    assert not found.outputs_agree
