"""Planted divergences: pairs of models that part in one known place, and what `diff` is to say of it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import Gives

import hookline

Inputs = tuple[Any, ...]
WIDTH, HEADS, WORDS = 16, 2, 30


@dataclass(frozen=True, slots=True)
class Planted:
    """One pair: `plant` gives the reference, the other, and what both are called with; `culprit` is the path that is to
    be named, `cause` the kind of one of its causes, `says` a part of the words; `options` go to `diff`."""

    name: str
    about: str
    culprit: str
    cause: str
    says: str
    plant: Callable[[], tuple[nn.Module, nn.Module, Inputs]]
    options: dict[str, Any]


PAIRS: list[Planted] = []


def differs_at(
    culprit: str, cause: str, says: str = "", **options: Any
) -> Callable[[Callable[[], tuple[nn.Module, nn.Module, Inputs]]], None]:
    """Puts a function that plants a divergence on the list; its docstring says what it is."""

    def put(plant: Callable[[], tuple[nn.Module, nn.Module, Inputs]]) -> None:
        def seeded() -> tuple[nn.Module, nn.Module, Inputs]:
            torch.manual_seed(0)
            return plant()

        about = (plant.__doc__ or "").strip().rstrip(".")
        PAIRS.append(Planted(plant.__name__.replace("_", " "), about, culprit, cause, says, seeded, options))

    return put


# The model that most are planted in


class Attention(nn.Module):
    """Self-attention of two heads, with a mask of the positions that may be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.scale = (WIDTH // HEADS) ** -0.5

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def join(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(-2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        scores = self.split(self.query(x)) @ self.split(self.key(x)).transpose(-1, -2) * self.scale
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        return self.output(self.join(weights @ self.split(self.value(x))))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.attention, self.norm_after = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
        self.up, self.activation, self.down = nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, WIDTH)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm(x), mask))
        return x + self.down(self.activation(self.up(self.norm_after(x))))


class Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(WORDS, WIDTH), nn.Embedding(32, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        return self.words(ids) + self.positions(torch.arange(ids.shape[1]).expand_as(ids))


class Reader(nn.Module):
    """A small transformer: [n, length] token ids in, [n, length, 4] out."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.layers = nn.ModuleList(Block() for _ in range(3))
        self.head = nn.Linear(WIDTH, 4)

    def mask(self, ids: Tensor) -> Tensor:
        return torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()

    def forward(self, ids: Tensor) -> Tensor:
        x, mask = self.embeddings(ids), self.mask(ids)
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(x)


def readers() -> tuple[Reader, Reader, Inputs]:
    """The same model twice, and a batch."""
    model = Reader().eval()
    return model, copy.deepcopy(model), (torch.randint(WORDS, (2, 6)),)


def with_code(module: nn.Module, **methods: Callable[..., Any]) -> None:
    """Have one module run other code, under its own class's name."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), methods)


# Settings


@differs_at("layers.1.norm", "attribute", "eps 1e-05 vs 0.001")
def eps_of_a_layer_norm() -> tuple[nn.Module, nn.Module, Inputs]:
    """A LayerNorm has another eps."""
    model, other, inputs = readers()
    other.layers[1].norm.eps = 1e-3
    return model, other, inputs


@differs_at("layers.0.activation", "attribute", "approximate 'none' vs 'tanh'")
def gelu_exact_or_tanh() -> tuple[nn.Module, nn.Module, Inputs]:
    """GELU is approximated by tanh."""
    model, other, inputs = readers()
    for layer in other.layers:
        layer.activation.approximate = "tanh"
    return model, other, inputs


@differs_at("layers.0.activation", "class", "GELU vs SiLU")
def another_activation() -> tuple[nn.Module, nn.Module, Inputs]:
    """SiLU instead of GELU."""
    model, other, inputs = readers()
    other.layers[0].activation = nn.SiLU()
    return model, other, inputs


@differs_at("layers.2.attention", "attribute", "scale 0.35")
def missing_scale() -> tuple[nn.Module, nn.Module, Inputs]:
    """An attention does not scale its scores."""
    model, other, inputs = readers()
    other.layers[2].attention.scale = 1.0
    return model, other, inputs


@differs_at("layers.0.dropout", "mode", "in eval mode vs train mode")
def dropout_left_on() -> tuple[nn.Module, nn.Module, Inputs]:
    """A dropout was left in training mode."""
    model, other, inputs = readers()
    other.layers[0].dropout.train()
    return model, other, inputs


@differs_at("1", "mode", "in train mode vs eval mode")
def batch_norm_in_evaluation() -> tuple[nn.Module, nn.Module, Inputs]:
    """A BatchNorm takes its running statistics."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    other = copy.deepcopy(model)
    other[1].eval()
    return model, other, (torch.randn(4, 1, 6, 6),)


@differs_at("0", "attribute", "stride (1, 1) vs (2, 2)")
def stride_of_a_convolution() -> tuple[nn.Module, nn.Module, Inputs]:
    """A convolution takes larger steps: its output has another shape."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    other = copy.deepcopy(model)
    other[0].stride = (2, 2)
    return model, other, (torch.randn(4, 1, 9, 9),)


@differs_at("0", "attribute", "padding_mode")
def padding_of_a_convolution() -> tuple[nn.Module, nn.Module, Inputs]:
    """A convolution pads by reflection."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    other = copy.deepcopy(model)
    other[0].padding_mode = "reflect"
    return model, other, (torch.randn(4, 1, 6, 6),)


# Weights and buffers


@differs_at("layers.1.attention.key", "weights", "1 of 256 elements")
def one_weight_perturbed() -> tuple[nn.Module, nn.Module, Inputs]:
    """One element of one weight is another."""
    model, other, inputs = readers()
    with torch.no_grad():
        other.layers[1].attention.key.weight[3, 5] += 0.01
    return model, other, inputs


@differs_at("layers.0.attention.output", "weights", "transposed")
def transposed_weight() -> tuple[nn.Module, nn.Module, Inputs]:
    """A square weight was copied the other way round."""
    model, other, inputs = readers()
    with torch.no_grad():
        weight = other.layers[0].attention.output.weight
        weight.copy_(weight.t().clone())
    return model, other, inputs


@differs_at("layers.1.attention.query", "weights", "the same numbers in another order")
def swapped_heads() -> tuple[nn.Module, nn.Module, Inputs]:
    """The heads of the queries stand in another order."""
    model, other, inputs = readers()
    with torch.no_grad():
        query = other.layers[1].attention.query
        query.weight.copy_(query.weight.roll(WIDTH // HEADS, dims=0))
    return model, other, inputs


@differs_at("layers.2.norm_after", "weights", "2 times as large")
def scaled_weight() -> tuple[nn.Module, nn.Module, Inputs]:
    """The weight of a norm is twice as large."""
    model, other, inputs = readers()
    with torch.no_grad():
        other.layers[2].norm_after.weight.mul_(2)
    return model, other, inputs


@differs_at("head", "weights", "bias differs")
def forgotten_bias() -> tuple[nn.Module, nn.Module, Inputs]:
    """The bias of the head was not loaded."""
    model, other, inputs = readers()
    nn.init.zeros_(other.head.bias)
    return model, other, inputs


@differs_at("1", "buffers", "running_var")
def other_running_statistics() -> tuple[nn.Module, nn.Module, Inputs]:
    """A BatchNorm's running variance is another."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    other = copy.deepcopy(model)
    other[1].running_var.mul_(1.5)
    return model, other, (torch.randn(4, 1, 6, 6),)


@differs_at("1.inner", "weights", "out_proj.weight differs")
def weight_of_a_module_that_is_not_called() -> tuple[nn.Module, nn.Module, Inputs]:
    """The output projection of a MultiheadAttention, which calls it not, is another."""

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x, x)[0]

    model = nn.Sequential(nn.Linear(8, 8), Around(), nn.Linear(8, 2))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[1].inner.out_proj.weight.neg_()
    return model, other, (torch.randn(2, 5, 8),)


# Code


@differs_at("layers.0.attention", "arguments", "passes output another argument 0")
def heads_joined_in_another_order() -> tuple[nn.Module, nn.Module, Inputs]:
    """An attention forgets to bring the heads back to the end before it joins them."""
    model, other, inputs = readers()
    with_code(other.layers[0].attention, join=lambda self, x: x.reshape(x.shape[0], x.shape[2], -1))
    return model, other, inputs


@differs_at("embeddings", "arguments", "calls positions with 1..6, not 0..5")
def positions_off_by_one() -> tuple[nn.Module, nn.Module, Inputs]:
    """Positions are counted from 1."""
    model, other, inputs = readers()

    def forward(self: Embeddings, ids: Tensor) -> Tensor:
        return self.words(ids) + self.positions(torch.arange(1, ids.shape[1] + 1).expand_as(ids))

    with_code(other.embeddings, forward=forward)
    return model, other, inputs


@differs_at("", "arguments", "passes layers.0 another argument 1")
def another_attention_mask() -> tuple[nn.Module, nn.Module, Inputs]:
    """The mask lets each position look ahead."""
    model, other, inputs = readers()
    with_code(other, mask=lambda self, ids: torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool))
    return model, other, inputs


@differs_at("layers.1", "order", "norm, attention, dropout")
def norm_after_the_attention() -> tuple[nn.Module, nn.Module, Inputs]:
    """A block normalizes after its attention, and not before."""
    model, other, inputs = readers()

    def forward(self: Block, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(x + self.dropout(self.attention(x, mask)))
        return x + self.down(self.activation(self.up(self.norm_after(x))))

    with_code(other.layers[1], forward=forward)
    return model, other, inputs


@differs_at("layers.2", "code")
def missing_residual() -> tuple[nn.Module, nn.Module, Inputs]:
    """A block forgets to add what came in."""
    model, other, inputs = readers()

    def forward(self: Block, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm(x), mask))
        return self.down(self.activation(self.up(self.norm_after(x))))

    with_code(other.layers[2], forward=forward)
    return model, other, inputs


@differs_at("1", "attribute", "make ")
def softmax_over_another_dimension() -> tuple[nn.Module, nn.Module, Inputs]:
    """A function that a module holds is another."""
    model = nn.Sequential(nn.Linear(4, 4), Gives(lambda x: x.softmax(-1)), nn.Linear(4, 2))
    other = nn.Sequential(model[0], Gives(lambda x: x.softmax(0)), model[2])
    return model, other, (torch.randn(4, 4),)


@differs_at("1", "code")
def not_a_number_for_zero() -> tuple[nn.Module, nn.Module, Inputs]:
    """A module divides by zero where the reference does not."""

    class Ratio(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / (x.abs() + 1e-6)

    model = nn.Sequential(nn.ReLU(), Ratio(), nn.Identity())
    other = copy.deepcopy(model)
    with_code(other[1], forward=lambda self, x: x / x.abs())
    return model, other, (torch.randn(4, 4),)


@differs_at("layers.0.dropout", "attribute", "p 0.3 vs 0.1")
def rate_of_a_dropout() -> tuple[nn.Module, nn.Module, Inputs]:
    """In training, from the same random state, a dropout drops fewer."""
    model, other, inputs = readers()
    other.layers[0].dropout.p = 0.1
    return model.train(), other.train(), inputs


# Precision and compiling


@differs_at("layers.1.attention.value", "dtype", "float32 vs bfloat16")
def one_layer_in_bfloat16() -> tuple[nn.Module, nn.Module, Inputs]:
    """One projection is computed in bfloat16, and cast back."""
    model, other, inputs = readers()
    value = other.layers[1].attention.value.to(torch.bfloat16)
    with_code(value, forward=lambda self, x: functional.linear(x.bfloat16(), self.weight, self.bias).float())
    return model, other, inputs


@differs_at("1", "dtype", "float32 vs bfloat16", tolerances={"**": (1e-3, 1e-3)})
def all_in_bfloat16() -> tuple[nn.Module, nn.Module, Inputs]:
    """The model is in bfloat16: with a strict tolerance the first module that computes makes it."""

    class Casting(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.to(self[1].weight.dtype))

    model = Casting(nn.Identity(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    x = torch.randn(4, 16).bfloat16().float()
    return model, copy.deepcopy(model).bfloat16(), (x,)


@torch.library.custom_op("hookline_tests::wrong_when_compiled", mutates_args=())
def wrong_when_compiled(x: Tensor) -> Tensor:
    return x * (1.5 if torch.compiler.is_compiling() or RUNNING_COMPILED else 1.0)


RUNNING_COMPILED: list[bool] = []


@wrong_when_compiled.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@differs_at("1", "code")
def compiled_with_a_wrong_custom_op() -> tuple[nn.Module, nn.Module, Inputs]:
    """A part is compiled by a backend that has a custom operator wrong."""

    def backend(graph: Any, examples: Any) -> Callable[..., Any]:
        def running(*args: Any) -> Any:
            RUNNING_COMPILED.append(True)
            try:
                return graph(*args)
            finally:
                RUNNING_COMPILED.clear()

        return running

    part = nn.Sequential(nn.Linear(4, 4), Gives(lambda x: wrong_when_compiled(x)))
    model = nn.Sequential(nn.Linear(4, 4), part, nn.ReLU())
    other = nn.Sequential(model[0], torch.compile(part, backend=backend), model[2])
    return model.eval(), other.eval(), (torch.randn(4, 4),)


# Ports


class PortedBlock(nn.Module):
    """The block under other names, called by other names."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.ln_1, self.attn, self.ln_2 = block.norm, block.attention, block.norm_after
        self.mlp = nn.Sequential(block.up, block.activation, block.down)

    def forward(self, hidden: Tensor, *, visible: Tensor) -> Tensor:
        hidden = hidden + self.attn(self.ln_1(hidden), mask=visible)
        return hidden + self.mlp(self.ln_2(hidden))


class Port(nn.Module):
    def __init__(self, model: Reader) -> None:
        super().__init__()
        self.wte = model.embeddings
        self.h = nn.ModuleList(map(PortedBlock, model.layers))
        self.lm_head = model.head

    def forward(self, ids: Tensor) -> Tensor:
        x, mask = self.wte(ids), torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        for block in self.h:
            x = block(x, visible=mask)
        return self.lm_head(x)


@differs_at("layers.1.norm_after", "attribute", "eps")
def renamed_port() -> tuple[nn.Module, nn.Module, Inputs]:
    """A port with other names has one eps wrong; nobody says which module is which."""
    model, other, inputs = readers()
    port = Port(other).eval()
    port.h[1].ln_2.eps = 1e-2
    return model, port, inputs


MAPPING = {
    "embeddings": "wte",
    "layers.*": "h.*",
    "layers.*.attention": "h.*.attn",
    "layers.*.norm": "h.*.ln_1",
    "layers.*.norm_after": "h.*.ln_2",
    "layers.*.up": "h.*.mlp.0",
    "layers.*.activation": "h.*.mlp.1",
    "layers.*.down": "h.*.mlp.2",
    "head": "lm_head",
}


@differs_at("layers.2.attention.query", "weights", "by up to", mapping=MAPPING)
def renamed_port_with_a_mapping() -> tuple[nn.Module, nn.Module, Inputs]:
    """A port with other names has one weight wrong; a mapping says which module is which."""
    model, other, inputs = readers()
    port = Port(other).eval()
    nn.init.normal_(port.h[2].attn.query.weight)
    return model, port, inputs


# Backward


class WrongGradient(torch.autograd.Function):
    """The identity, with a gradient that is twice too large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


@differs_at("layers.1.activation", "code", grads=True)
def gradient_of_an_activation() -> tuple[nn.Module, nn.Module, Inputs]:
    """An activation gives the same, and sends back twice the gradient."""
    model, other, inputs = readers()
    kind = type(other.layers[1].activation)
    with_code(other.layers[1].activation, forward=lambda self, x: WrongGradient.apply(kind.forward(self, x)))
    return model, other, inputs


@differs_at("head", "code", grads=True)
def gradient_of_a_weight() -> tuple[nn.Module, nn.Module, Inputs]:
    """A layer gives the same and sends back the same, and its own weight gets another gradient."""
    model, other, inputs = readers()
    with_code(
        other.head,
        forward=lambda self, x: functional.linear(x, WrongGradient.apply(self.weight), self.bias),
    )
    return model, other, inputs


def found_in(planted: Planted) -> hookline.Diff:
    """What `diff` says of a planted pair."""
    model, other, inputs = planted.plant()
    return hookline.diff(model, other, *inputs, **planted.options)
