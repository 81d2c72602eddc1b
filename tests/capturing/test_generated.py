"""Tests of the steps of `generate`: where each example ends, and its rows of all steps."""

from collections.abc import Callable
from copy import deepcopy
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
    steps = [torch.tensor([4, 4]), torch.tensor([0, 5]), torch.tensor([0, 6])]
    assert ends_of(steps, 2, ends=[], pads=[0]) == [2, 4]


def test_padding_in_the_last_step_of_all_was_generated() -> None:
    assert ends_of([torch.tensor([4]), torch.tensor([0])], 1, ends=[], pads=[0]) == [3]
    steps = [torch.tensor([4, 2, 0]), torch.tensor([0, 0, 0])]
    assert ends_of(steps, 3, ends=[2], pads=[0]) == [3, 1, 1]


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


# Calls of the model that are no steps of one token


def with_options(**options: Any) -> Any:
    def run(model: Any, inputs: Any) -> Any:
        return model.generate(**inputs, max_new_tokens=STEPS, do_sample=False, **options)

    return run


@pytest.mark.parametrize(
    "options", [{"prefill_chunk_size": 2}, {"prefill_chunk_size": 3}, {"cache_implementation": "static"}]
)
def test_prompt_in_pieces_has_the_rows_of_a_whole_one(llama: Any, take: Take, options: Any) -> None:
    whole, pieces = take(), take(run=with_options(**options), until=[10])
    for number in range(6):
        assert pieces.tokens(number).tolist() == whole.tokens(number).tolist()
        assert pieces.positions(number).tolist() == whole.positions(number).tolist()
        torch.testing.assert_close(pieces[number], whole[number])


def test_end_token_in_the_prompt_is_no_end(llama: Any, take: Take) -> None:
    llama.generation_config.eos_token_id = [10, 3]  # that prompts end with
    whole, pieces = take(), take(run=with_options(prefill_chunk_size=3))
    assert [len(own) for own in pieces] == [len(own) for own in whole]


def test_positions_of_a_prompt_in_pieces_are_an_error(take: Take) -> None:
    with pytest.raises(hookline.CaptureError, match="in pieces"):
        take(run=with_options(prefill_chunk_size=2), positions=-1)


def test_beginning_that_is_cached_already_ends_no_example_later(llama: Any, tmp_path: Path) -> None:
    prompts = torch.tensor([[1, 2, 3], [1, 2, 6], [1, 2, 11]])
    llama.generation_config.eos_token_id = [10, 9, 8, 7, 6]
    with torch.no_grad():
        found = llama(prompts[:, :2])
    name = "cache" if "cache" in found else "past_key_values"  # as this release calls it

    def cached(model: Any, inputs: Any) -> Any:
        return model.generate(**inputs, **{name: deepcopy(found[name])}, max_new_tokens=STEPS, do_sample=False)

    def lengths(run: Any) -> list[int]:
        options: Any = {"rows": hookline.rows(), "calls": "join", "progress": False, "call": left}
        acts = hookline.capture(
            llama, prompts.tolist(), "model.layers.1", to=tmp_path / run.__name__, run=run, **options
        )
        return [len(own) for own in acts["model.layers.1"]]

    assert lengths(cached) == [length - 2 for length in lengths(generate)]


def test_generating_without_a_cache_is_an_error(take: Take) -> None:
    with pytest.raises(hookline.CaptureError, match="use_cache"):
        take(run=with_options(use_cache=False))


def test_guessed_tokens_are_an_error(llama: Any, tmp_path: Path) -> None:
    options: Any = {"call": left, "rows": hookline.rows(), "calls": "join", "progress": False}
    run = with_options(prompt_lookup_num_tokens=2)
    with pytest.raises(hookline.CaptureError, match="guesses"):
        hookline.capture(llama, [[3, 4, 3, 4, 3, 4]], "model.layers.1", to=tmp_path, run=run, **options)


def test_loop_that_uses_one_tensor_for_all_tokens_ends_right(tmp_path: Path) -> None:
    model = torch.nn.Embedding(10, 3)

    def loop(model: Any, inputs: Any) -> None:
        token = inputs.new_empty(2, 1)
        model(inputs)
        for made in ([5, 6], [9, 6], [1, 6], [1, 9]):
            model(token.copy_(torch.tensor(made)[:, None]))

    class Tokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = model

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.embed(input_ids)
            return out

    options: Any = {"rows": hookline.rows(until=9), "calls": "join", "progress": False}
    prompts = torch.tensor([[3, 4], [3, 4]])
    point = hookline.capture(Tokens().eval(), prompts, "embed", to=tmp_path, run=loop, **options)["embed"]
    assert [point.tokens(number).tolist() for number in range(2)] == [[3, 4, 5], [3, 4, 6, 6, 6]]
