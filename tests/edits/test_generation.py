"""generation_step: which step a call is, by whatever shows it."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    BertGenerationConfig,
    BertGenerationDecoder,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

import hookline
from hookline import edits
from hookline.errors import EditError

SMALL = {"vocab_size": 50, "eos_token_id": 49}


def gpt2():
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=32, bos_token_id=0, **SMALL))


def llama():
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, max_position_embeddings=32, bos_token_id=0, **SMALL))


def t5():
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0, **SMALL))


def mamba():
    return MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4, **SMALL))


def rwkv():
    return RwkvForCausalLM(RwkvConfig(hidden_size=16, num_hidden_layers=2, attention_hidden_size=16, **SMALL))


def bert():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertGenerationDecoder(BertGenerationConfig(**sizes, is_decoder=True, bos_token_id=0, **SMALL))


HEADS = {rwkv: "head"}


def generate(model, length, steps=4, **options):
    model.generation_config.pad_token_id = 0
    prompt = torch.arange(1, 1 + length).reshape(1, -1)
    options = {"max_new_tokens": steps, "min_new_tokens": steps, "do_sample": False} | options
    return model.eval().generate(prompt, attention_mask=torch.ones_like(prompt), **options)


def edited(model, use, wanted, place="lm_head"):
    """The numbers of those calls that are edited while `use()` runs."""
    calls, seen = [], []

    def note(tensor):
        seen.append(len(calls) - 1)
        return tensor

    with (
        hookline.on(model, "", before=calls.append, order=-10),
        hookline.edit(model, place, output=note, when=edits.generation_step(wanted)),
    ):
        use()
    return seen


@pytest.mark.parametrize("make", [gpt2, llama, t5, mamba, rwkv, bert])
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [(0, [0, 4, 8]), (1, [1, 5, 9]), (lambda step: step > 1, [2, 3, 6, 7, 10, 11])],
    ids=["first", "second", "function"],
)
def test_steps_are_counted_with_the_cache_of_generate(make, wanted, expected):
    torch.manual_seed(0)
    model = make()
    assert (
        edited(model, lambda: [generate(model, length) for length in (4, 5, 3)], wanted, HEADS.get(make, "lm_head"))
        == expected
    )


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.parametrize(
    "options",
    [{"cache_implementation": "static", "disable_compile": True}, {"num_beams": 3}, {"use_cache": False}],
    ids=str,
)
def test_steps_are_counted_however_generate_runs(make, options):
    torch.manual_seed(0)
    model = make()
    assert edited(model, lambda: [generate(model, length, **options) for length in (4, 5)], 1) == [1, 5]


def test_generations_of_one_step_are_each_step_0():
    model = gpt2()
    assert edited(model, lambda: [generate(model, 4, steps=1) for _ in range(3)], 0) == [0, 1, 2]


def test_one_step_generations_without_a_cache_are_step_0():
    model = t5()
    assert edited(model, lambda: [generate(model, 4, steps=1, use_cache=False) for _ in range(3)], 0) == [0, 1, 2]


def test_a_prompt_that_is_read_in_chunks_is_step_0():
    model = llama()
    assert edited(model, lambda: generate(model, 8, prefill_chunk_size=4), 0) == [0, 1]


def test_another_turn_on_the_same_cache_is_an_error_instead_of_a_wrong_step():
    model = llama()

    def turns():
        first = generate(model, 4, return_dict_in_generate=True)
        cache = getattr(first, "cache", None) or first.past_key_values
        tokens = torch.cat([first.sequences, torch.tensor([[5, 6, 7]])], 1)
        name = "cache" if hasattr(first, "cache") else "past_key_values"
        model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=2, **{name: cache})

    with pytest.raises(EditError, match="4 tokens and a cache that is not empty"):
        edited(model, turns, 0)


class Reads(nn.Module):
    """A model whose loop is somebody's own: it takes whatever it is given."""

    def __init__(self):
        super().__init__()
        self.lm_head = nn.Identity()

    def forward(self, tokens, *others, **named):
        return self.lm_head(tokens.float())


class OwnCache:
    def __init__(self, tokens):
        self.keys = [torch.ones(1, 2, tokens, 4) for _ in range(2 if tokens else 0)]


class Slotted:
    __slots__ = ("buffer",)

    def __init__(self, tokens):
        self.buffer = torch.zeros(8)
        self.buffer[:tokens] = 1


class Mamba:
    def __init__(self, tokens):
        self.conv_states = torch.full((1, 4), float(tokens))
        self.ssm_states = {0: torch.full((1, 4), float(tokens))}


class Offset:
    def __init__(self, tokens):
        self.seqlen_offset = tokens


def legacy(tokens):
    return tuple((torch.ones(1, 2, tokens, 4), torch.ones(1, 2, tokens, 4)) for _ in range(2)) if tokens else None


def states(tokens):
    return [torch.ones(1, 4)] * 3 if tokens else None


CACHES = [
    ("anything", Mamba),
    ("anything", Offset),
    ("anything", legacy),
    ("past_key_values", legacy),
    ("cache", OwnCache),
    ("kv_cache", Slotted),
    ("state", states),
    ("mems", states),
    ("start_pos", int),
    ("input_pos", lambda tokens: torch.tensor([3]) if tokens else torch.arange(3)),
    ("cache_position", lambda tokens: torch.tensor([3]) if tokens else torch.arange(3)),
]


@pytest.mark.parametrize(("name", "cache"), CACHES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CACHES)])
def test_a_cache_is_recognized_in_a_loop_of_ones_own(name, cache):
    model = Reads()

    def loop():
        for _ in range(2):
            model(torch.tensor([[1, 2, 3]]), **{name: cache(0)})
            model(torch.tensor([[7]]), **{name: cache(3)})
            model(torch.tensor([[7]]), **{name: cache(4) if name not in ("input_pos", "cache_position") else cache(3)})

    assert edited(model, loop, 0) == [0, 3]
    assert edited(model, loop, 1) == [1, 4]


def test_a_cache_is_recognized_by_position():
    model = Reads()

    def loop():
        model(torch.tensor([[1, 2, 3]]), None, Offset(0))
        model(torch.tensor([[1]]), None, Offset(3))

    assert edited(model, loop, 1) == [1]


def test_a_window_of_tokens_continues_a_generation():
    model = Reads()

    def loop():
        tokens = torch.arange(5)[None]
        for new in (9, 8, 7):
            model(tokens[:, -6:])
            tokens = torch.cat([tokens, torch.tensor([[new]])], 1)

    assert edited(model, lambda: (loop(), loop()), 2) == [2, 5]


@pytest.mark.parametrize("second", [torch.tensor([[5]]), torch.tensor([[1]])])
def test_one_token_without_a_cache_is_an_error(second):
    model = Reads()
    with pytest.raises(EditError, match="one token and no known cache"):
        edited(model, lambda: (model(torch.tensor([[1, 2, 3]])), model(second)), 0)


def test_a_cache_that_does_not_show_what_it_holds_is_an_error():
    model = Reads()
    with pytest.raises(EditError, match="its cache, a object, does not show whether it is empty"):
        edited(model, lambda: model(torch.tensor([[1, 2, 3]]), cache=object()), 0)


def test_tokens_that_are_all_alike_in_a_window_are_an_error():
    model, tokens = Reads(), torch.ones(1, 3, dtype=torch.int64)
    with pytest.raises(EditError, match="all alike"):
        edited(model, lambda: (model(tokens), model(tokens)), 0)


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_calls_do_not_count_as_steps(reentrant):
    def gradient(run):
        torch.manual_seed(0)
        model, x = Reads(), torch.ones(3, 1, requires_grad=True)
        model.lm_head = nn.Linear(1, 1)
        with hookline.edit(model, "lm_head", output=edits.scale(3.0), when=edits.generation_step(0)):
            losses = [run(model, x, Offset(tokens)).square().sum() for tokens in (0, 1, 2, 0)]
            for loss in losses:
                loss.backward()
        return x.grad

    recomputed = gradient(lambda model, *args: checkpoint(model, *args, use_reentrant=reentrant))
    assert torch.allclose(recomputed, gradient(lambda model, *args: model(*args)))
