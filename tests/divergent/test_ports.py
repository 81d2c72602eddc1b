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


def test_caller_with_other_positions_is_named() -> None:
    model, port, ids = gpts(start=1)

    found = hookline.diff(model, port, ids)

    assert found.culprit.path == ""
    assert found.culprit.why.startswith("calls wpe with 1..16, not 0..15")
    assert [pair.path for pair in found.culprits] == [""]


class Wraps(nn.Module):
    """A model called with all that is given, or with less."""

    def __init__(self, model: nn.Module, *, leaves_out: str = "") -> None:
        super().__init__()
        self.model, self._out = model, leaves_out

    def forward(self, ids: Tensor, **options: object) -> Tensor:
        return self.model(ids, **{name: part for name, part in options.items() if name != self._out})


OPTIONS = {
    "position_ids": torch.arange(3, 19).expand(2, -1),
    "attention_mask": torch.ones(2, 16, dtype=torch.int64).index_fill(1, torch.arange(4), 0),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_caller_that_leaves_an_argument_out_is_named(name: str) -> None:
    model, _, ids = gpts()

    found = hookline.diff(Wraps(model), Wraps(model, leaves_out=name), ids, **OPTIONS)

    assert found.culprit.path == ""
    assert found.culprit.why.startswith(f"calls model without {name}")
    assert [pair.path for pair in found.culprits] == [""]


@pytest.mark.parametrize("name", OPTIONS)
def test_caller_that_adds_an_argument_is_named(name: str) -> None:
    model, _, ids = gpts()

    found = hookline.diff(Wraps(model, leaves_out=name), Wraps(model), ids, **OPTIONS)

    assert found.culprit.path == ""
    assert f"calls model with {name}, which the first leaves out" in found.culprit.why


class Masks(nn.Module):
    def __init__(self, inner: nn.Module, *, gives: bool) -> None:
        super().__init__()
        self.inner, self._gives = inner, gives

    def forward(self, x: Tensor) -> Tensor:
        mask = x > 0
        return self.inner(x, mask) if self._gives else self.inner(x)


class Inner(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x if mask is None else x * mask


def test_positional_argument_left_out_is_told_by_its_name() -> None:
    found = hookline.diff(Masks(Inner(), gives=True), Masks(Inner(), gives=False), torch.randn(3, 4))

    assert found.culprit.path == ""
    assert found.culprit.why.startswith("calls inner without mask")


def test_callee_that_fails_on_all_arguments_too_is_named() -> None:
    class Wrong(Inner):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            return x + 1

    found = hookline.diff(Masks(Inner(), gives=True), Masks(Wrong(), gives=False), torch.randn(3, 4))

    assert found.culprit.path == "inner"


DTYPES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [0, 1])
def test_what_rounding_explains_is_no_difference(dtype: torch.dtype, place: int) -> None:
    model, port, ids = gpts()
    one, other = [(model, port.to(dtype)), (port.to(dtype), model)][place]

    found = hookline.diff(one, other, ids)

    assert not found
    assert found.culprit is None
    assert "no difference in 23 calls beyond rounding" in found.summary
    assert repr(found).count("rounding explains the differences of") == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_weight_that_rounding_does_not_explain_is_the_culprit(dtype: torch.dtype) -> None:
    _, model, ids = gpts()
    port = copy.deepcopy(model).to(dtype)
    with torch.no_grad():
        port.transformer.h[1].mlp.c_fc.weight.mul_(1.2)

    found = hookline.diff(model, port, ids)

    assert [pair.path for pair in found.culprits] == ["transformer.h.1.mlp.c_fc"]
    assert found.culprit.why.startswith("weight differs")
    assert "1.2 times as large" in found.culprit.why


def test_code_that_rounding_does_not_explain_is_the_culprit() -> None:
    _, model, ids = gpts()
    port = copy.deepcopy(model).bfloat16()
    block = port.transformer.h[1]
    block.forward = lambda x: block.mlp(block.ln_2(x + block.attn(block.ln_1(x))))

    assert [pair.path for pair in hookline.diff(model, port, ids).culprits] == ["transformer.h.1"]


def test_runs_fold_what_rounding_explains() -> None:
    _, model, ids = gpts()
    runs = []
    for each in (model, copy.deepcopy(model).bfloat16()):
        with hookline.watch(each, keep=hookline.fingerprint, inputs=hookline.fingerprint) as run, torch.no_grad():
            each(ids)
        runs.append(run)

    assert not hookline.diff(*runs)


def test_square_weight_used_the_other_way_round_is_said_to_be_transposed() -> None:
    from transformers.pytorch_utils import Conv1D

    model, port = Conv1D(8, 8), nn.Linear(8, 8)
    port.weight, port.bias = model.weight, model.bias

    found = hookline.diff(nn.Sequential(model), nn.Sequential(port), torch.randn(3, 8))

    assert found.culprit.why.startswith("weight is used transposed")
