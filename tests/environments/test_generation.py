"""model.generate under a watch: the same tokens, and every step's calls apart."""

import pytest
import torch

import hookline

transformers = pytest.importorskip("transformers")
PROMPT = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
STEPS = 3


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=30, n_positions=32, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def llama():
    config = transformers.LlamaConfig(
        vocab_size=30,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.LlamaForCausalLM(config)


@pytest.fixture(params=[gpt2, llama])
def model(request):
    torch.manual_seed(0)
    return request.param().eval()


each_cache = pytest.mark.parametrize("cache", ["dynamic", "static"])


def generate(model, cache, **options):
    return model.generate(
        PROMPT,
        attention_mask=torch.ones_like(PROMPT),
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        do_sample=False,
        pad_token_id=0,
        cache_implementation=cache,
        disable_compile=True,
        **options,
    )


@each_cache
def test_the_tokens_are_those_without_a_watch(model, cache):
    plain = generate(model, cache)
    with hookline.watch(model):
        assert torch.equal(generate(model, cache), plain)


@each_cache
def test_each_step_is_a_call_by_index(model, cache):
    with hookline.watch(model, keep="shape") as run:
        generate(model, cache)
    assert [call.output.logits.shape[:1] for call in run.calls_of("")] == [(2,)] * STEPS
    assert [call.index for call in run.calls_of("lm_head")] == [*range(STEPS)]


@each_cache
def test_the_first_step_takes_the_prompt_and_each_later_one_a_token(model, cache):
    first = "transformer.h.0" if "GPT2" in type(model).__name__ else "model.layers.0"
    with hookline.watch(model, keep="shape") as run:
        generate(model, cache)
    lengths = [call.inputs[0].shape[1] for call in run.calls_of(first)]
    assert lengths == [PROMPT.shape[1]] + [1] * (STEPS - 1)


@each_cache
def test_every_call_of_a_step_stands_inside_of_that_step(model, cache):
    with hookline.watch(model, keep="shape") as run:
        generate(model, cache)
    assert [call.parent.index for call in run.calls_of("lm_head")] == [*range(STEPS)]


@each_cache
def test_generate_itself_is_recorded_around_the_steps(model, cache):
    with hookline.watch(model, methods=["generate"], keep="shape") as run:
        generate(model, cache)
    assert run["generate()"].output.shape == (2, PROMPT.shape[1] + STEPS)
    assert [call.parent.path for call in run.calls_of("")] == ["generate()"] * STEPS


def test_a_watched_forward_leaves_generate_its_signature(model):
    plain = generate(model, "dynamic")
    with hookline.watch(model, methods=["forward", "generate"]):
        assert torch.equal(generate(model, "dynamic"), plain)


def test_the_table_of_a_generation_numbers_the_steps(model):
    with hookline.watch(model, "", keep="shape") as run:
        generate(model, "dynamic")
    name = type(model).__name__
    assert [line.split("  ")[0] for line in repr(run).splitlines()[2:5]] == [name, f"{name} #1", f"{name} #2"]
