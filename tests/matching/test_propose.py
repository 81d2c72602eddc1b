"""Partners for modules of other names: by weights first, then by values, structure and order."""

import copy
import time

import torch
from torch import Tensor, nn

import hookline
from hookline.matching.match import match
from hookline.testing import recorded

X = torch.linspace(-1, 1, 24).reshape(3, 8)


class Branches(nn.Module):
    """A stem, and three branches behind it that are called in the order of their names."""

    def __init__(self, stem: nn.Module, **branches: nn.Module) -> None:
        super().__init__()
        self.stem, self.names = stem, [*branches]
        for name, branch in branches.items():
            setattr(self, name, branch)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return sum((number + 1) * getattr(self, name)(x) for number, name in enumerate(self.names))


def branches() -> tuple[Branches, Branches]:
    """A model, and a port of it in which the branches have other names and another order, and the stem is another."""
    torch.manual_seed(0)
    a, b, c = (nn.Linear(8, 8) for _ in range(3))
    return Branches(nn.Linear(8, 8), a=a, b=b, c=c), copy.deepcopy(Branches(nn.Linear(8, 8), z=c, x=a, y=b))


def test_weights_match_modules_called_in_another_order() -> None:
    assert hookline.diff(*branches(), X).proposed == {"a": "x", "b": "y", "c": "z"}


def test_weights_that_are_slightly_other_tell_too() -> None:
    model, port = branches()
    with torch.no_grad():
        for parameter in port.parameters():
            parameter += 0.01 * torch.randn_like(parameter)

    assert hookline.diff(model, port, X).proposed == {"a": "x", "b": "y", "c": "z"}


def test_a_conv1d_is_the_partner_of_a_linear() -> None:
    class Conv1D(nn.Module):
        def __init__(self, linear: nn.Linear) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(linear.weight.detach().t().clone()), nn.Parameter(linear.bias)

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight + self.bias

    model, port = branches()
    for name in "xyz":
        setattr(port, name, Conv1D(getattr(port, name)))

    assert hookline.diff(model, port, X).proposed == {"a": "x", "b": "y", "c": "z"}


def test_what_has_no_weights_goes_with_the_container_that_it_is_in() -> None:
    class Named(nn.Module):
        def __init__(self, first: str, second: str, blocks: list[nn.Linear], *, turned: bool) -> None:
            super().__init__()
            self.first, self.second, self.turned = first, second, turned
            setattr(self, first, nn.ModuleDict({f"{first}_in": blocks[0], f"{first}_act": nn.ReLU()}))
            setattr(self, second, nn.ModuleDict({f"{second}_in": blocks[1], f"{second}_act": nn.ReLU()}))

        def forward(self, x: Tensor) -> Tensor:
            parts = {}
            for name in [self.second, self.first] if self.turned else [self.first, self.second]:
                inner, activation = getattr(self, name).values()
                parts[name] = activation(inner(x))
            return parts[self.first] - parts[self.second]

    torch.manual_seed(0)
    blocks = [nn.Linear(8, 8) for _ in range(2)]
    model, port = Named("a", "b", blocks, turned=False), Named("x", "y", copy.deepcopy(blocks), turned=True)
    with torch.no_grad():
        for parameter in port.parameters():
            parameter += 0.01

    assert hookline.diff(model, port, X).proposed == {
        **{"a.a_in": "x.x_in", "b.b_in": "y.y_in"},
        **{"a.a_act": "x.x_act", "b.b_act": "y.y_act"},
    }


def test_tied_weights_are_told_apart_by_class() -> None:
    class Tied(nn.Module):
        def __init__(self, *names: str) -> None:
            super().__init__()
            self.names = names
            embedding, head = nn.Embedding(30, 8), nn.Linear(8, 30, bias=False)
            head.weight = embedding.weight
            setattr(self, names[0], embedding)
            setattr(self, names[1], head)

        def forward(self, ids: Tensor) -> Tensor:
            return getattr(self, self.names[1])(getattr(self, self.names[0])(ids))

    torch.manual_seed(0)
    model, port = Tied("words", "head"), Tied("wte", "lm_head")
    port.wte.weight.data.copy_(model.words.weight)

    found = hookline.diff(model, port, torch.arange(6)[None])

    assert not found
    assert found.proposed == {"words": "wte", "head": "lm_head"}


def test_partners_of_thousands_of_modules_are_proposed_in_no_time() -> None:
    class Wide(nn.Module):
        def __init__(self, prefix: str, layers: list[nn.Linear]) -> None:
            super().__init__()
            self.inner = nn.ModuleDict({f"{prefix}{number}": layer for number, layer in enumerate(layers)})

        def forward(self, x: Tensor) -> Tensor:
            return sum(layer(x) for layer in self.inner.values())

    layers = [nn.Linear(8, 8) for _ in range(2000)]
    model, port = Wide("a", layers), Wide("b", layers[::-1])
    runs = recorded(model, X), recorded(port, X)
    began = time.perf_counter()

    found = match(*runs, modules=(dict(model.named_modules()), dict(port.named_modules())))

    assert found.paths["inner.a0"] == "inner.b1999"
    assert time.perf_counter() - began < 30
