"""Tests of the steps of `generate`: where each example ends, and its rows of all steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

import hookline
from hookline.capturing.generated import ends_of, ids_of_ends

PROMPTS = [[1, 2, 3], [4, 6], [7, 8, 9, 3], [2], [3, 3], [9, 1]]
STEPS = 8


def left(batch: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, batch))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in batch])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def generate(model: Any, inputs: Any) -> Any:
    return model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)


def sample(model: Any, inputs: Any) -> Any:
    return model.generate(**inputs, max_new_tokens=STEPS, do_sample=True)


@pytest.fixture
def llama() -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=12, **shape)).eval()
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = 10
    return model


Take = Callable[..., Any]


@pytest.fixture
def take(llama: Any, tmp_path: Path) -> Take:
    def make(batch: int = 6, run: Any = generate, calls: Any = "join", **rows: Any) -> Any:
        to = tmp_path / f"{batch} {calls} {rows} {run.__name__}"
        which = hookline.rows(mask="attention_mask", **rows)
        options = {"call": left, "run": run, "calls": calls, "rows": which, "batch": batch, "progress": False}
        return hookline.capture(llama, PROMPTS, "model.layers.1", to=to, **options)["model.layers.1"]

    return make


def alone(llama: Any, prompt: list[int]) -> list[int]:
    """The tokens that the model received for one prompt alone: all but the last one that it generated."""
    ids = llama.generate(**left([prompt]), max_new_tokens=STEPS, do_sample=False)[0].tolist()
    return [*ids][:-1]


def test_rows_of_an_example_are_those_that_it_has_alone(llama: Any, take: Take) -> None:
    point = take()
    assert [point.tokens(number).tolist() for number in range(6)] == [alone(llama, prompt) for prompt in PROMPTS]


def test_some_examples_end_before_the_others(take: Take) -> None:
    assert len({len(own) for own in take()}) > 2


def test_rows_do_not_depend_on_the_batch(take: Take) -> None:
    one, six = take(1), take(6)
    for mine, theirs in zip(one, six, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_last_call_of_an_ended_example_is_its_own(llama: Any, take: Take) -> None:
    joined, last = take(), take(calls="last")
    for number in range(6):
        torch.testing.assert_close(last[number], joined[number][-1:])


def test_ends_may_be_given(take: Take) -> None:
    point = take(until=[11])
    assert all(11 not in point.tokens(number).tolist() for number in range(6))


def test_pad_that_was_generated_is_no_end() -> None:
    assert ends_of([torch.tensor([0]), torch.tensor([4])], 1, ends=[], pads=[0]) == [3]


def test_padding_to_the_last_step_is_an_end() -> None:
    assert ends_of([torch.tensor([4]), torch.tensor([0]), torch.tensor([0])], 1, ends=[], pads=[0]) == [2]


def test_steps_without_tokens_all_count() -> None:
    assert ends_of([None, None], 2, ends=[1], pads=[0]) == [3, 3]


@pytest.mark.parametrize("eos", [7, [7, 8]])
def test_ends_are_those_of_the_model(llama: Any, eos: Any) -> None:
    llama.generation_config.eos_token_id = eos
    assert ids_of_ends(llama) == ([7, 8] if isinstance(eos, list) else [7], [0])


def test_model_without_a_configuration_has_no_ends() -> None:
    assert ids_of_ends(torch.nn.Linear(1, 1)) == ([], [])


def test_sampled_text_is_the_same_again(take: Take, tmp_path: Path) -> None:
    point = take(2, sample)
    torch.rand(3)
    (tmp_path / "2 join {} sample").rename(tmp_path / "before")
    again = take(2, sample)
    for mine, theirs in zip(hookline.open(tmp_path / "before")["model.layers.1"], again, strict=True):
        assert torch.equal(mine, theirs)
    assert len(point) == 6


def test_tokens_of_an_encoder_and_a_decoder_of_one_length_are_not_guessed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=12, decoder_start_token_id=0, **shape)).eval()
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    acts = hookline.capture(
        model,
        [*ids],
        "decoder.block.0",
        to=tmp_path,
        key=0,
        call=lambda batch: {"input_ids": torch.stack(batch), "decoder_input_ids": torch.stack(batch) + 1},
        rows=hookline.rows(),
        progress=False,
    )
    with pytest.raises(hookline.CaptureError, match="no token ids"):
        acts["decoder.block.0"].tokens(0)
