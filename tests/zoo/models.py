"""The zoo: small models with inputs, chosen because each does something that a tool on top of hooks may disturb."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

Inputs = tuple[tuple[Any, ...], dict[str, Any]]

VOCABULARY = 99
LENGTHS = (7, 4)


# Outputs and losses


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Gives every leaf of nested containers in order, each with its path, such as `[0].logits` or `['x'][1]`."""
    inside = children(value)
    if inside is None:
        yield path, value
        return

    for step, child in inside:
        yield from leaves(child, path + step)


def children(value: Any) -> Iterable[tuple[str, Any]] | None:
    """Gives what a container holds, each with its step of the path, or None for a leaf."""
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", child) for key, child in value.items()]
    if isinstance(value, tuple | list):
        return [(f"[{index}]", child) for index, child in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return [(f".{field.name}", getattr(value, field.name)) for field in fields(value)]
    if type(value).__module__ == "transformers.cache_utils":
        return [(f".{name}", child) for name, child in vars(value).items()]
    return None


def weighted_sum(output: Any) -> Tensor:
    """A scalar, the sum of all floating and complex elements of an output, each times a weight of its own.

    The weights are there because the plain sum of a layer norm's or a softmax's output has no gradient.
    """
    tensors = [leaf for _, leaf in leaves(output) if isinstance(leaf, Tensor)]
    return sum(
        (weigh(tensor) for tensor in tensors if is_differentiable(tensor)), start=torch.zeros((), dtype=torch.float64)
    )


def is_differentiable(tensor: Tensor) -> bool:
    """Says whether a tensor's type can carry a gradient."""
    return tensor.is_floating_point() or tensor.is_complex()


def weigh(tensor: Tensor) -> Tensor:
    """The sum of a tensor's elements under weights that rise evenly from -1 to 2, as a float64 scalar."""
    flat = torch.cat([part.reshape(-1) for part in tensor.unbind()]) if tensor.is_nested else tensor.reshape(-1)
    real = torch.view_as_real(flat.resolve_conj()).reshape(-1) if flat.is_complex() else flat
    return torch.dot(real.double(), torch.linspace(-1, 2, real.numel(), dtype=torch.float64))


@dataclass(frozen=True, slots=True)
class Specimen:
    """A model of the zoo: how to build it, what to call it with, and what to send back through it.

    `build` seeds torch first, so that each model it gives has the same weights; `inputs` gives positional and keyword
    arguments made afresh, in which the tensors that require a gradient are the ones whose gradient is compared;
    `warnings` holds regular expressions of the messages that running the model cannot avoid.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    loss: Callable[[Any], Tensor] = weighted_sum
    warnings: tuple[str, ...] = ()


def specimen_by_name(name: str) -> Specimen:
    """Gives the specimen of that name, or raises KeyError."""
    return {specimen.name: specimen for specimen in ZOO}[name]


# Inputs


def call(*args: Any, **kwargs: Any) -> Inputs:
    """Gives the arguments it is called with, as a specimen's `inputs` does."""
    return args, kwargs


def noise(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers, the same at every call, that require a gradient."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def integers(*shape: int, start: int = 0, stop: int = VOCABULARY, seed: int = 1) -> Tensor:
    """Uniform integers from start to stop - 1, the same at every call."""
    return torch.randint(start, stop, shape, generator=torch.Generator().manual_seed(seed))


def padding() -> Tensor:
    """A mask, shape (2, 7), True where a sequence has ended: the second is shorter than the first."""
    return torch.arange(max(LENGTHS)) >= torch.tensor(LENGTHS)[:, None]


def token_inputs() -> Inputs:
    """Token indices, shape (2, 7), above those that configurations give to special tokens, and their mask."""
    return call(input_ids=integers(2, 7, start=5, stop=95), attention_mask=(~padding()).long())


def unmasked_token_inputs() -> Inputs:
    """Token indices, shape (2, 7), for the models that take no mask."""
    return call(input_ids=integers(2, 7, start=5, stop=95))


def translation_inputs() -> Inputs:
    """Masked token indices for an encoder, and shape (2, 5) for its decoder."""
    args, kwargs = token_inputs()
    return args, {**kwargs, "decoder_input_ids": integers(2, 5, start=5, stop=95, seed=2)}


def image_inputs(size: int = 32) -> Inputs:
    """Two square images, shape (2, 3, size, size)."""
    return call(pixel_values=noise(2, 3, size, size))


def image_and_text_inputs() -> Inputs:
    """Two images and two masked texts."""
    return (), token_inputs()[1] | image_inputs()[1]


def waveform_inputs() -> Inputs:
    """Two sounds, shape (2, 400), without gradient: in training the models claim the gradient of a leaf themselves."""
    return call(input_values=noise(2, 400).detach())


# Models of transformers, from tiny configurations


def architecture(
    name: str, class_name: str, inputs: Callable[[], Inputs], *, checkpointed: bool = False, **settings: Any
) -> Specimen:
    """A specimen of a transformers class with random weights and a configuration of these settings."""

    def build() -> nn.Module:
        import transformers

        model_class = getattr(transformers, class_name)
        torch.manual_seed(0)
        model = model_class(model_class.config_class(**settings))
        if checkpointed:
            model.activation_checkpointing_enable()
        return model

    return Specimen(name, build, inputs)


DEPTH = {"num_hidden_layers": 2, "num_attention_heads": 2}
BLOCKS = {"hidden_size": 16, "intermediate_size": 32, **DEPTH}
TEXT = {"vocab_size": VOCABULARY, "max_position_embeddings": 32, **BLOCKS}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {**TEXT, **SPECIAL, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
GPT2 = {
    "vocab_size": VOCABULARY,
    "n_positions": 32,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "bos_token_id": 98,
    "eos_token_id": 98,
}
TRANSLATOR = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "max_position_embeddings": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "attention_dropout": 0.1,
    "decoder_start_token_id": 2,
    **SPECIAL,
}
VISION = {"image_size": 32, "patch_size": 8, **BLOCKS}
SPEECH = {
    **BLOCKS,
    "vocab_size": 32,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_length": 4,
    "mask_feature_prob": 0.1,
    "mask_feature_length": 2,
}
PAIR = {
    "projection_dim": 16,
    "text_config": {
        **TEXT,
        "projection_dim": 16,
        "pad_token_id": 0,
        "bos_token_id": 97,
        "eos_token_id": 98,
        "sep_token_id": 98,
    },
    "vision_config": {**VISION, "projection_dim": 16, "initializer_range": 0.02},
}

TEXT_ENCODERS = [
    architecture("bert", "BertModel", token_inputs, **TEXT),
    architecture("roberta", "RobertaForMaskedLM", token_inputs, **TEXT),
    architecture(
        "distilbert",
        "DistilBertModel",
        token_inputs,
        vocab_size=VOCABULARY,
        max_position_embeddings=32,
        n_layers=2,
        n_heads=2,
        dim=16,
        hidden_dim=32,
    ),
    architecture("albert", "AlbertModel", token_inputs, embedding_size=8, hidden_dropout_prob=0.1, **TEXT),
    architecture(
        "deberta_v2",
        "DebertaV2Model",
        token_inputs,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=4,
        norm_rel_ebd="layer_norm",
        **TEXT,
    ),
    architecture("electra", "ElectraForPreTraining", token_inputs, embedding_size=8, **TEXT),
    architecture("mpnet", "MPNetModel", token_inputs, **TEXT),
    architecture(
        "modernbert",
        "ModernBertModel",
        token_inputs,
        local_attention=4,
        attention_dropout=0.1,
        mlp_dropout=0.1,
        cls_token_id=3,
        sep_token_id=4,
        **{**TEXT, **SPECIAL},
    ),
    architecture(
        "xlnet", "XLNetModel", token_inputs, vocab_size=VOCABULARY, d_model=16, n_layer=2, n_head=2, d_inner=32
    ),
]

DECODERS = [
    architecture("gpt2", "GPT2LMHeadModel", token_inputs, **GPT2),
    architecture(
        "gpt2_checkpointed",
        "GPT2LMHeadModel",
        token_inputs,
        checkpointed=True,
        use_cache=False,
        **GPT2,
    ),
    architecture("gpt_neox", "GPTNeoXForCausalLM", token_inputs, hidden_dropout=0.1, **TEXT),
    architecture(
        "opt",
        "OPTForCausalLM",
        token_inputs,
        vocab_size=VOCABULARY,
        max_position_embeddings=32,
        hidden_size=16,
        word_embed_proj_dim=8,
        ffn_dim=32,
        layerdrop=0.1,
        **DEPTH,
    ),
    architecture("llama", "LlamaForCausalLM", token_inputs, **GROUPED),
    architecture("mistral", "MistralForCausalLM", token_inputs, sliding_window=4, **GROUPED),
    architecture("qwen2", "Qwen2ForCausalLM", token_inputs, attention_dropout=0.1, **GROUPED),
    architecture("qwen3", "Qwen3ForCausalLM", token_inputs, head_dim=8, **GROUPED),
    architecture("gemma2", "Gemma2ForCausalLM", token_inputs, head_dim=8, sliding_window=4, **GROUPED),
    architecture("phi", "PhiForCausalLM", token_inputs, resid_pdrop=0.1, embd_pdrop=0.1, **TEXT),
    architecture(
        "bloom", "BloomForCausalLM", token_inputs, vocab_size=VOCABULARY, hidden_size=16, n_head=2, hidden_dropout=0.1
    ),
    architecture("falcon", "FalconForCausalLM", token_inputs, vocab_size=VOCABULARY, hidden_size=16, **DEPTH),
    architecture("olmo", "OlmoForCausalLM", token_inputs, **GROUPED),
]

EXPERTS = [
    architecture(
        "mixtral",
        "MixtralForCausalLM",
        token_inputs,
        num_local_experts=4,
        output_router_logits=True,
        router_jitter_noise=0.1,
        **GROUPED,
    ),
    architecture(
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        token_inputs,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        **GROUPED,
    ),
    architecture("olmoe", "OlmoeForCausalLM", token_inputs, num_experts=4, num_experts_per_tok=2, **GROUPED),
]

STATE_SPACES = [
    architecture(
        "mamba",
        "MambaForCausalLM",
        token_inputs,
        vocab_size=VOCABULARY,
        hidden_size=16,
        state_size=4,
        num_hidden_layers=2,
        **SPECIAL,
    ),
    architecture(
        "mamba2",
        "Mamba2ForCausalLM",
        token_inputs,
        vocab_size=VOCABULARY,
        hidden_size=16,
        state_size=4,
        num_heads=4,
        head_dim=8,
        n_groups=2,
        chunk_size=4,
        num_hidden_layers=2,
        **SPECIAL,
    ),
    architecture(
        "rwkv",
        "RwkvForCausalLM",
        unmasked_token_inputs,
        vocab_size=VOCABULARY,
        context_length=16,
        hidden_size=16,
        num_hidden_layers=2,
        rescale_every=1,
        use_cache=False,
    ),
]

TRANSLATORS = [
    architecture(
        "t5",
        "T5ForConditionalGeneration",
        translation_inputs,
        vocab_size=VOCABULARY,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        relative_attention_num_buckets=8,
        decoder_start_token_id=0,
    ),
    architecture("bart", "BartForConditionalGeneration", translation_inputs, encoder_layerdrop=0.1, **TRANSLATOR),
    architecture("marian", "MarianMTModel", translation_inputs, **TRANSLATOR),
    architecture("pegasus", "PegasusForConditionalGeneration", translation_inputs, **TRANSLATOR),
]

VISION_MODELS = [
    architecture("vit", "ViTModel", image_inputs, hidden_dropout_prob=0.1, **VISION),
    architecture("deit", "DeiTModel", image_inputs, attention_probs_dropout_prob=0.1, **VISION),
    architecture(
        "swin",
        "SwinModel",
        image_inputs,
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=(2, 2),
        num_heads=(2, 2),
        window_size=4,
        drop_path_rate=0.3,
    ),
    architecture(
        "convnext",
        "ConvNextModel",
        image_inputs,
        num_stages=2,
        hidden_sizes=(8, 16),
        depths=(1, 2),
        layer_scale_init_value=0.1,
        drop_path_rate=0.3,
        image_size=32,
    ),
    architecture("resnet", "ResNetModel", image_inputs, embedding_size=8, hidden_sizes=(16, 32), depths=(1, 2)),
    architecture("beit", "BeitModel", image_inputs, use_relative_position_bias=True, drop_path_rate=0.3, **VISION),
    architecture(
        "dinov2", "Dinov2Model", image_inputs, mlp_ratio=2, image_size=32, patch_size=8, hidden_size=16, **DEPTH
    ),
    architecture(
        "mobilevit",
        "MobileViTModel",
        partial(image_inputs, 64),
        image_size=64,
        hidden_sizes=(8, 12, 16),
        neck_hidden_sizes=(4, 8, 8, 8, 12, 16, 32),
        num_attention_heads=2,
        output_stride=16,
        initializer_range=0.3,
    ),
    architecture(
        "segformer",
        "SegformerModel",
        image_inputs,
        num_encoder_blocks=2,
        depths=(1, 2),
        sr_ratios=(4, 2),
        hidden_sizes=(8, 16),
        patch_sizes=(7, 3),
        strides=(4, 2),
        num_attention_heads=(1, 2),
        mlp_ratios=(2, 2),
        drop_path_rate=0.3,
    ),
]

SPEECH_MODELS = [
    architecture("wav2vec2", "Wav2Vec2Model", waveform_inputs, **SPEECH),
    architecture("hubert", "HubertModel", waveform_inputs, **SPEECH),
    architecture(
        "whisper",
        "WhisperForConditionalGeneration",
        lambda: call(input_features=noise(2, 8, 20).detach(), decoder_input_ids=integers(2, 5, start=5, stop=95)),
        num_mel_bins=8,
        max_source_positions=10,
        max_target_positions=16,
        dropout=0.1,
        apply_spec_augment=True,
        mask_time_length=2,
        mask_time_min_masks=1,
        **{name: value for name, value in TRANSLATOR.items() if name != "max_position_embeddings"},
    ),
    architecture(
        "audio_spectrogram_transformer",
        "ASTModel",
        lambda: call(input_values=noise(2, 24, 16)),
        patch_size=4,
        frequency_stride=4,
        time_stride=4,
        max_length=24,
        num_mel_bins=16,
        hidden_dropout_prob=0.1,
        **BLOCKS,
    ),
]

MULTIMODAL_MODELS = [
    architecture("clip", "CLIPModel", image_and_text_inputs, **PAIR),
    architecture("blip", "BlipForConditionalGeneration", image_and_text_inputs, **PAIR),
    architecture("siglip", "SiglipModel", image_and_text_inputs, **PAIR),
]

TRANSFORMERS = [
    *TEXT_ENCODERS,
    *DECODERS,
    *EXPERTS,
    *STATE_SPACES,
    *TRANSLATORS,
    *VISION_MODELS,
    *SPEECH_MODELS,
    *MULTIMODAL_MODELS,
]


# Modules of the layers below, each the smallest that shows one habit


class Packed(nn.Module):
    """A recurrent network that packs padded sequences before it runs and pads them after."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(4, 6, batch_first=True, bidirectional=True)

    def forward(self, sequences: Tensor, lengths: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        packed = pack_padded_sequence(sequences, lengths, batch_first=True, enforce_sorted=False)
        output, state = self.recurrent(packed)
        return pad_packed_sequence(output, batch_first=True)[0], state


class CellLoop(nn.Module):
    """A cell called once for each step of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(4, 6)

    def forward(self, sequence: Tensor) -> Tensor:
        state = None
        steps = []
        for step in sequence.unbind(dim=1):
            state = self.cell(step, state)
            steps.append(state[0])

        return torch.stack(steps, dim=1)


class SelfAttention(nn.Module):
    """Multi-head attention that is given one tensor as query, key and value."""

    def __init__(self, *, need_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True)
        self.need_weights = need_weights

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.attention(x, x, x, key_padding_mask=mask, need_weights=self.need_weights)


class ResidualInPlace(nn.Module):
    """A block that adds its branch onto its own input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.ReLU(), nn.Linear(4, 4), nn.Dropout(0.2), nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x += self.branch(x)
        return x


class SliceInPlace(nn.Module):
    """A module that writes into a view of what its linear layer returned."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.linear(x)
        hidden[:, :2].mul_(2)
        hidden[:, 3] = x[:, 3]
        return hidden


class Thrice(nn.Module):
    """One module called three times under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Dropout(0.2))
        self.again = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.first(self.again(self.first(x)))


class Tied(nn.Module):
    """An embedding whose weight is also that of the linear layer that reads it out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8)
        self.readout = nn.Linear(8, VOCABULARY, bias=False)
        self.readout.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.readout(self.embedding(tokens).tanh())


class BoundedEmbedding(nn.Module):
    """An embedding whose forward pass shrinks, in place, the rows of its weight that are too long."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 8, max_norm=1.0, padding_idx=0, scale_grad_by_freq=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens)


class Checkpointed(nn.Module):
    """Blocks whose forward pass runs a second time in the backward pass."""

    def __init__(self, *, use_reentrant: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Dropout(0.2)) for _ in range(2))
        self.use_reentrant = use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.use_reentrant)
        return x


@dataclass
class Estimate:
    """A mean and its spread, which may be unknown."""

    mean: Tensor
    spread: Tensor | None


class Pair(NamedTuple):
    """What two heads say."""

    left: Tensor
    right: Tensor


class Returns(nn.Module):
    """A linear layer whose output is arranged by a function, so that it can return any type."""

    def __init__(self, arrange: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.arrange = arrange

    def forward(self, x: Tensor) -> Any:
        return self.arrange(self.linear(x))


class Around(nn.Module):
    """A module within another that passes its input on and reads the pieces of whatever comes back."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        output = self.inner(x)
        tensors = [leaf for _, leaf in leaves(output) if isinstance(leaf, Tensor) and leaf.shape[-1:] == (4,)]
        return output, self.last(torch.stack(tensors).sum(dim=0))


class KeywordOnly(nn.Module):
    """A module that takes its tensors by keyword only."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, *, left: Tensor, right: Tensor, scale: float = 1.0) -> Tensor:
        return self.linear(left) * scale + self.linear(right)


class Lists(nn.Module):
    """A module that takes any number of lists of tensors and gives as many tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, *groups: list[Tensor]) -> list[Tensor]:
        return [self.linear(torch.cat(group)) for group in groups]


class Recursive(nn.Module):
    """A module that calls itself until its depth is used up."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, depth: int) -> Tensor:
        if depth == 0:
            return x
        return self(self.linear(x).tanh(), depth - 1)


class OwnParameter(nn.Module):
    """A module that takes nothing and returns its parameter itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 4))

    def forward(self) -> Tensor:
        return self.weight


class Prompted(nn.Module):
    """A network that puts a parameter, returned by a module of its own, before its input."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt = OwnParameter()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.cat([self.prompt(), x]))


class Argmax(nn.Module):
    """A classifier that gives only the index of the best class."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).argmax(dim=-1)


class Discrete(nn.Module):
    """A network whose indices of best classes are embedded again, so integers pass between its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.argmax = Argmax()
        self.embedding = nn.Embedding(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(self.argmax(x))


class Energy(nn.Module):
    """A force field: its output is the gradient of its network, so the backward pass differentiates twice."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 1))

    def forward(self, positions: Tensor) -> Tensor:
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.network(positions).sum(), positions, create_graph=True)
        return -gradient


class StraightThrough(torch.autograd.Function):
    """Rounding whose gradient is that of the identity."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient


class Rounded(nn.Module):
    """A linear layer with a custom function after it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return StraightThrough.apply(self.linear(x) * 3)


class FrozenTrunk(nn.Module):
    """A trunk run without gradients under a head run with them."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.trunk(x)
        return self.head(features)


class LowPrecision(nn.Module):
    """A network that switches automatic mixed precision on for part of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.body(x)
        return self.head(hidden.float())


class Spectrum(nn.Module):
    """A filter that works on complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5, dtype=torch.complex64)

    def forward(self, signal: Tensor) -> Tensor:
        return self.linear(torch.fft.rfft(signal)).conj()


class LayerDrop(nn.Module):
    """Layers of which training skips some, drawn with Python's generator, and adds noise drawn with numpy's."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not self.training or random.random() < 0.5:
                x = layer(x).tanh()
        return x + torch.from_numpy(numpy.random.standard_normal(x.shape)).float() if self.training else x


class Counter(nn.Module):
    """A module that counts its calls in a buffer and keeps its last output, with its graph, as an attribute."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = self.linear(x)
        return self.last * self.calls


def activated(activation: nn.Module) -> nn.Sequential:
    """A convolutional network in which one activation module follows both convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), activation, nn.Conv2d(4, 4, 3), activation, nn.Flatten(), nn.Linear(4 * 16, 3)
    )


def frozen(module: nn.Module) -> nn.Module:
    """The module, its parameters asking for no gradient, as the fast path of an encoder demands."""
    return module.requires_grad_(False)


def encoder_layer(**settings: Any) -> nn.TransformerEncoderLayer:
    """A layer of a transformer encoder of width 8."""
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **settings)


def hooked() -> nn.Module:
    """A network that already has hooks of every kind, of which some change what passes through."""
    network = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    network.register_forward_pre_hook(lambda _, args, kwargs: ((args[0] * 2,), kwargs), with_kwargs=True)
    network[0].register_forward_hook(lambda _, args, output: output + args[0])
    network[0].register_full_backward_hook(lambda _, ingoing, outgoing: tuple(gradient * 0.5 for gradient in ingoing))
    network[2].register_full_backward_pre_hook(lambda _, outgoing: tuple(gradient * 3 for gradient in outgoing))
    network[2].weight.register_hook(lambda gradient: gradient.clamp(-0.1, 0.1))
    return network


def with_own_forward() -> nn.Module:
    """A linear layer whose forward method was replaced on the instance, as tools that move weights do."""
    linear = nn.Linear(4, 4)
    original = linear.forward
    linear.forward = lambda x: original(x) * 2
    return linear


# Layers of torch.nn and their compositions


def layer(
    name: str, make: Callable[[], nn.Module], inputs: Callable[[], Inputs], *, warnings: tuple[str, ...] = ()
) -> Specimen:
    """A specimen of the module that `make` gives once torch is seeded."""

    def build() -> nn.Module:
        torch.manual_seed(0)
        return make()

    return Specimen(name, build, inputs, warnings=warnings)


def returning(name: str, arrange: Callable[[Tensor], Any]) -> Specimen:
    """A specimen in which a module returns its output as `arrange` arranges it, and another reads it."""
    return layer(name, lambda: Around(Returns(arrange)), matrix)


def matrix() -> Inputs:
    """One matrix, shape (3, 4)."""
    return call(noise(3, 4))


def sequence() -> Inputs:
    """Two sequences of seven vectors, shape (2, 7, 4)."""
    return call(noise(2, 7, 4))


def jagged() -> Inputs:
    """One nested tensor of two sequences of unlike length, shape (2, 7 or 4, 4)."""
    return call(torch.nested.nested_tensor([noise(7, 4), noise(4, 4)], layout=torch.jagged, requires_grad=True))


def picture() -> Inputs:
    """Two small pictures, shape (2, 3, 8, 8)."""
    return call(noise(2, 3, 8, 8))


NESTED_WARNING = "The PyTorch API of nested tensors is in prototype stage"

RECURRENT = [
    layer("lstm", lambda: nn.LSTM(4, 6, num_layers=2, dropout=0.2, batch_first=True), sequence),
    layer("gru", lambda: nn.GRU(4, 6, num_layers=2, dropout=0.2), sequence),
    layer("rnn", lambda: nn.RNN(4, 6, nonlinearity="relu"), lambda: call(noise(7, 2, 4), noise(1, 2, 6))),
    layer("lstm_packed", Packed, lambda: call(noise(2, 7, 4), torch.tensor(LENGTHS[::-1]))),
    layer(
        "lstm_bidirectional_projected",
        lambda: nn.LSTM(4, 6, num_layers=2, bidirectional=True, proj_size=3),
        lambda: call(noise(7, 2, 4), (noise(4, 2, 3), noise(4, 2, 6))),
        warnings=("LSTM with projections is not supported with oneDNN",),
    ),
    layer("lstm_cell_loop", CellLoop, sequence),
]

ATTENTION = [
    layer(
        "attention_with_weights",
        lambda: SelfAttention(need_weights=True),
        lambda: call(noise(2, 7, 8), padding()),
    ),
    layer(
        "attention_without_weights",
        lambda: SelfAttention(need_weights=False),
        lambda: call(noise(2, 7, 8), padding()),
    ),
    layer(
        "attention_fast_path",
        lambda: frozen(SelfAttention(need_weights=False)),
        lambda: call(noise(2, 7, 8).detach(), padding()),
    ),
    layer("transformer_encoder", lambda: nn.TransformerEncoder(encoder_layer(), 2), lambda: call(noise(2, 7, 8))),
    layer(
        "transformer_encoder_fast_path",
        lambda: frozen(nn.TransformerEncoder(encoder_layer(), 2)),
        lambda: call(noise(2, 7, 8).detach()),
    ),
    layer(
        "transformer_encoder_nested_tensor",
        lambda: frozen(nn.TransformerEncoder(encoder_layer(activation="gelu"), 2, enable_nested_tensor=True)),
        lambda: call(noise(2, 7, 8).detach(), src_key_padding_mask=padding()),
        warnings=(NESTED_WARNING,),
    ),
    layer(
        "transformer_encoder_without_nested_tensor",
        lambda: frozen(nn.TransformerEncoder(encoder_layer(), 2, enable_nested_tensor=False)),
        lambda: call(noise(2, 7, 8).detach(), src_key_padding_mask=padding()),
    ),
    layer(
        "transformer_encoder_norm_first",
        lambda: nn.TransformerEncoder(encoder_layer(norm_first=True), 2, nn.LayerNorm(8), enable_nested_tensor=False),
        lambda: call(noise(2, 7, 8)),
    ),
    layer(
        "transformer_decoder",
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2),
        lambda: call(
            noise(2, 5, 8),
            noise(2, 7, 8),
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(5),
            tgt_is_causal=True,
        ),
    ),
]

EMBEDDINGS = [
    layer("embedding", lambda: nn.Embedding(VOCABULARY, 8), lambda: call(integers(2, 7))),
    layer("embedding_sparse", lambda: nn.Embedding(VOCABULARY, 8, sparse=True), lambda: call(integers(2, 7))),
    layer("embedding_bounded", BoundedEmbedding, lambda: call(integers(2, 7))),
    layer("embedding_bag", lambda: nn.EmbeddingBag(VOCABULARY, 8, mode="max"), lambda: call(integers(2, 7))),
    layer(
        "embedding_bag_weighted",
        lambda: nn.EmbeddingBag(VOCABULARY, 8, mode="sum"),
        lambda: call(integers(7), torch.tensor([0, 3]), per_sample_weights=noise(7)),
    ),
    layer("tied_weights", Tied, lambda: call(integers(2, 7))),
    layer(
        "adaptive_log_softmax",
        lambda: nn.AdaptiveLogSoftmaxWithLoss(8, 20, cutoffs=[5, 10], div_value=2.0),
        lambda: call(noise(16, 8), integers(16, stop=20)),
    ),
]

CONVOLUTIONS = [
    layer("relu_in_place", lambda: activated(nn.ReLU(inplace=True)), picture),
    layer("dropout_in_place", lambda: activated(nn.Dropout(0.3, inplace=True)), picture),
    layer("hardswish_in_place", lambda: activated(nn.Hardswish(inplace=True)), picture),
    layer("random_relu", lambda: activated(nn.RReLU()), picture),
    layer(
        "batch_norm",
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2)
        ),
        picture,
    ),
    layer(
        "group_norm_upsampling",
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ConvTranspose2d(4, 2, 2, stride=2)),
        picture,
    ),
]

IN_PLACE = [
    layer(
        "residual_in_place",
        lambda: nn.Sequential(nn.Linear(4, 4), ResidualInPlace(), ResidualInPlace(), nn.LayerNorm(4)),
        matrix,
    ),
    layer("slice_in_place", lambda: nn.Sequential(SliceInPlace(), nn.Linear(4, 4)), matrix),
    layer("relu_in_place_on_input", lambda: nn.ReLU(inplace=True), lambda: call(noise(3, 4).detach())),
]

SHARING = [
    layer(
        "nested_sequential",
        lambda: nn.Sequential(
            nn.Linear(4, 4), nn.Sequential(nn.Tanh(), nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2)))
        ),
        matrix,
    ),
    layer("shared_three_times", Thrice, matrix),
    layer("recursive", Recursive, lambda: call(noise(3, 4), depth=3)),
]

PARAMETRIZED = [
    layer("weight_norm", lambda: parametrizations.weight_norm(nn.Linear(4, 4)), matrix),
    layer("spectral_norm", lambda: parametrizations.spectral_norm(nn.Linear(4, 4)), matrix),
    layer("spectral_norm_by_hook", lambda: nn.utils.spectral_norm(nn.Linear(4, 4)), matrix),
    layer("orthogonal", lambda: parametrizations.orthogonal(nn.Linear(4, 4)), matrix),
    layer(
        "lazy_linear",
        lambda: nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(2)),
        matrix,
    ),
]

CHECKPOINTED = [
    layer("checkpoint_reentrant", lambda: Checkpointed(use_reentrant=True), matrix),
    layer("checkpoint_not_reentrant", lambda: Checkpointed(use_reentrant=False), matrix),
]

RETURNED = [
    returning("returns_dictionary", lambda x: {"hidden": x, "deep": {1: x.tanh()}}),
    returning("returns_dataclass", lambda x: Estimate(x, None)),
    returning("returns_tuple_with_none", lambda x: (None, x, None)),
    returning("returns_named_tuple", lambda x: Pair(x, x.relu())),
    returning("returns_list", lambda x: [x, [x + 1]]),
    returning("returns_tensor_twice", lambda x: (x, x)),
    returning("returns_views", lambda x: x.unsqueeze(0).unbind(0)),
    returning("returns_detached", lambda x: (x, x.detach(), 3, "label")),
    layer("returns_input", nn.Identity, matrix),
    layer("returns_input_within", lambda: nn.Sequential(nn.Identity(), nn.Linear(4, 4), nn.Identity()), matrix),
    layer("returns_own_parameter", OwnParameter, call),
    layer("returns_own_parameter_within", Prompted, matrix),
    layer("returns_integers", Argmax, matrix),
    layer("returns_integers_within", Discrete, matrix),
]

CALLED = [
    layer("keyword_only", KeywordOnly, lambda: call(left=noise(3, 4), right=noise(3, 4, seed=2), scale=0.5)),
    layer("lists_of_tensors", Lists, lambda: call([noise(1, 4), noise(2, 4)], [noise(3, 4, seed=2)])),
    layer("empty_batch", lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU()), lambda: call(noise(0, 4))),
    layer("jagged_batch", lambda: nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 2)), jagged),
    layer("bilinear", lambda: nn.Bilinear(4, 3, 2), lambda: call(noise(3, 4), noise(3, 3))),
]

NUMBERS = [
    layer("double_precision", lambda: nn.Linear(4, 4).double(), lambda: call(noise(3, 4, dtype=torch.float64))),
    layer("half_precision", lambda: nn.Linear(4, 4).bfloat16(), lambda: call(noise(3, 4, dtype=torch.bfloat16))),
    layer("mixed_precision", LowPrecision, matrix),
    layer("complex_numbers", Spectrum, lambda: call(noise(3, 8))),
    layer("not_a_number", lambda: Returns(lambda x: (x.sqrt(), x.log())), matrix),
]

GRAPHS = [
    layer("gradient_within", Energy, lambda: call(noise(5, 3))),
    layer("custom_function", Rounded, matrix),
    layer("frozen_trunk", FrozenTrunk, matrix),
    layer("random_layers", LayerDrop, matrix),
    layer("gumbel_softmax", lambda: Returns(functional.gumbel_softmax), matrix),
    layer("keeps_output", lambda: nn.Sequential(Counter(), Counter()), matrix),
    layer("already_hooked", hooked, matrix),
    layer("own_forward", with_own_forward, matrix),
]

LAYERS = [
    *RECURRENT,
    *ATTENTION,
    *EMBEDDINGS,
    *CONVOLUTIONS,
    *IN_PLACE,
    *SHARING,
    *PARAMETRIZED,
    *CHECKPOINTED,
    *RETURNED,
    *CALLED,
    *NUMBERS,
    *GRAPHS,
]

ZOO = [*TRANSFORMERS, *LAYERS]
