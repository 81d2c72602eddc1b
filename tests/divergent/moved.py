"""Planted divergences in models whose modules have other names, another order or another place."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from divergent.pairs import Inputs, differs_at


def linear() -> nn.Linear:
    return nn.Linear(8, 8)


def batch() -> Inputs:
    return (torch.randn(3, 8),)


class Sum(nn.Module):
    """Its parts one after the other, summed."""

    def __init__(self, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([part(x) for part in self.parts.values()]).sum(0)


class Residual(nn.Module):
    """A list of layers, each added to what it is given."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x) if isinstance(layer, nn.Identity) else x + layer(x)
        return x


class Holds(nn.Module):
    """Another module under a name of its own."""

    def __init__(self, name: str, inner: nn.Module) -> None:
        super().__init__()
        self.name = name
        setattr(self, name, inner)

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.name)(x)


@differs_at("parts.b", "weights", "1 of 64 elements")
def parts_of_a_dictionary_in_another_order() -> tuple[nn.Module, nn.Module, Inputs]:
    """A ModuleDict has other names in another order, and one weight is another."""
    a, b, c = linear(), linear(), linear()
    port = copy.deepcopy(Sum({"z": c, "y": b, "x": a}))
    with torch.no_grad():
        port.parts["y"].weight[0, 0] += 0.3
    return Sum({"a": a, "b": b, "c": c}), port, batch()


@differs_at("parts.a", "weights")
def weights_upstream_of_parts_in_another_order() -> tuple[nn.Module, nn.Module, Inputs]:
    """All weights of a port are a little other in one part, and its parts have another order."""
    a, b, c = linear(), linear(), linear()
    port = copy.deepcopy(Sum({"z": c, "x": a, "y": b}))
    with torch.no_grad():
        port.parts["x"].weight += 0.02 * torch.randn(8, 8)
    return Sum({"a": a, "b": b, "c": c}), port, batch()


@differs_at("1", "attribute", "eps 1e-05 vs 0.1")
def wrapped_three_times() -> tuple[nn.Module, nn.Module, Inputs]:
    """A model lies three wrappers deep, and one eps in it is wrong."""
    model = nn.Sequential(linear(), nn.LayerNorm(8), linear())
    other = copy.deepcopy(model)
    other[1].eps = 0.1
    return model, Holds("core", Holds("inner", Holds("model", other))), batch()


@differs_at("", "calls", "calls 3, which has no partner")
def a_layer_dropped_at_the_end() -> tuple[nn.Module, nn.Module, Inputs]:
    """The last layer was left out."""
    model = nn.Sequential(linear(), nn.ReLU(), linear(), nn.ReLU())
    return model, copy.deepcopy(model)[:3], batch()


@differs_at("layers", "calls", "calls 1, which has no partner")
def a_block_dropped_in_the_middle() -> tuple[nn.Module, nn.Module, Inputs]:
    """A block in the middle was left out: those behind it have moved, and are none of it."""
    blocks = [nn.Sequential(linear(), nn.ReLU()) for _ in range(4)]
    other = copy.deepcopy([blocks[0], *blocks[2:]])
    return Holds("layers", nn.Sequential(*blocks)), Holds("layers", nn.Sequential(*other)), batch()


@differs_at("2", "weights", "1 of 64 elements")
def a_weight_behind_an_inserted_dropout() -> tuple[nn.Module, nn.Module, Inputs]:
    """A dropout that does nothing was put in, and a layer behind it has a wrong weight."""
    model = nn.Sequential(linear(), nn.ReLU(), linear(), nn.LayerNorm(8))
    first, *others = copy.deepcopy(model)
    with torch.no_grad():
        others[1].weight[0, 0] += 0.5
    return model, nn.Sequential(first, nn.Dropout(0.0), *others), batch()


@differs_at("layers.2.1", "attribute", "eps")
def a_norm_behind_an_inserted_identity() -> tuple[nn.Module, nn.Module, Inputs]:
    """A module that does nothing was put into a ModuleList of blocks, and a norm behind it has a wrong eps."""
    blocks = [nn.Sequential(linear(), nn.LayerNorm(8)) for _ in range(4)]
    first, *others = copy.deepcopy(blocks)
    others[1][1].eps = 0.1
    return Residual(blocks), Residual([first, nn.Identity(), *others]), batch()


@differs_at("1", "weights", "bias differs")
def a_layer_that_was_not_loaded_behind_an_inserted_identity() -> tuple[nn.Module, nn.Module, Inputs]:
    """A module that does nothing was put in before a layer of which no weight was loaded."""
    model = nn.Sequential(linear(), linear(), linear())
    other = copy.deepcopy(model)
    other[1].reset_parameters()
    return model, nn.Sequential(nn.Identity(), *other), batch()


@differs_at("0", "weights", "bias differs")
def a_shared_activation_that_became_several() -> tuple[nn.Module, nn.Module, Inputs]:
    """One activation is called twice, in the port there are two, and the first bias is wrong."""
    shared, layers = nn.ReLU(), [linear(), linear(), linear()]
    own = copy.deepcopy(layers)
    with torch.no_grad():
        own[0].bias += 0.5
    model = nn.Sequential(layers[0], shared, layers[1], shared, layers[2])
    return model, nn.Sequential(own[0], nn.ReLU(), own[1], nn.ReLU(), own[2]), batch()


@differs_at("words", "weights", "1 of 240 elements")
def tied_weights_under_other_names() -> tuple[nn.Module, nn.Module, Inputs]:
    """Embedding and head are one tensor, in the port two, of which the one is wrong."""

    class Tied(nn.Module):
        def __init__(self, *names: str) -> None:
            super().__init__()
            self.names = names
            for name, module in zip(names, (nn.Embedding(30, 8), nn.Linear(8, 30, bias=False)), strict=True):
                setattr(self, name, module)

        def forward(self, ids: Tensor) -> Tensor:
            return getattr(self, self.names[1])(getattr(self, self.names[0])(ids))

    model, port = Tied("words", "head"), Tied("wte", "lm_head")
    model.head.weight = model.words.weight
    with torch.no_grad():
        for module in (port.wte, port.lm_head):
            module.weight.copy_(model.words.weight)
        port.wte.weight[3, 2] += 0.5
    return model, port, (torch.arange(6)[None],)


@differs_at("norm", "attribute", "momentum 0.1 vs 0.3")
def momentum_in_a_renamed_port() -> tuple[nn.Module, nn.Module, Inputs]:
    """Nothing but what a BatchNorm makes of its running statistics is another, in a port of other names."""

    class Normed(nn.Module):
        def __init__(self, *names: str) -> None:
            super().__init__()
            self.names = names
            for name, module in zip(names, (nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)), strict=True):
                setattr(self, name, module)

        def forward(self, x: Tensor) -> Tensor:
            return getattr(self, self.names[1])(getattr(self, self.names[0])(x)).relu()

    model, port = Normed("conv", "norm"), Normed("c", "n")
    port.c.load_state_dict(model.conv.state_dict())
    port.n.momentum = 0.3
    return model, port, (torch.randn(2, 3, 6, 6),)


@differs_at("layers.1.norm1", "attribute", "eps")
def a_cloned_encoder_in_a_wrapper() -> tuple[nn.Module, nn.Module, Inputs]:
    """Layers that all hold the same weights, as nn.TransformerEncoder clones them, lie in a wrapper; one eps is wrong."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    other = copy.deepcopy(model)
    other.layers[1].norm1.eps = 0.1
    return model, Holds("encoder", other), (torch.randn(2, 4, 8),)


@differs_at("1", "attribute", "eps", tolerances=(0.05, 0.05))
def a_norm_of_a_model_in_bfloat16() -> tuple[nn.Module, nn.Module, Inputs]:
    """The port is in bfloat16 and is given floats; beyond rounding a wrong eps makes it."""
    model = nn.Sequential(linear(), nn.LayerNorm(8), linear())
    other = copy.deepcopy(model).bfloat16()
    other[1].eps = 0.5
    return model, other, batch()


@differs_at("m.model.layers.1.input_layernorm", "attribute", "variance_epsilon")
def a_norm_of_a_model_that_generates() -> tuple[nn.Module, nn.Module, Inputs]:
    """A model of transformers generates four tokens, and one norm has a wrong eps."""
    model = llama()
    other = copy.deepcopy(model)
    other.m.model.layers[1].input_layernorm.variance_epsilon = 0.5
    return model, other, (torch.randint(40, (1, 6)),)


def llama() -> nn.Module:
    import transformers

    class Generates(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.m = model

        def forward(self, ids: Tensor) -> Tensor:
            given = {"min_new_tokens": 4, "max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
            return self.m.generate(ids, attention_mask=torch.ones_like(ids), **given)

    sizes = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    config = transformers.LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1)
    return Generates(transformers.LlamaForCausalLM(config)).eval()
