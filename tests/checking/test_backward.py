"""Which module's backward made the first NaN, where several take one tensor or code stands between two modules."""

from pathlib import Path
from typing import Any

import pytest
import torch
from planted.parts import Held, X, told, zeros
from torch import Tensor, nn
from toys import Gives

import hookline


def root(x: Tensor) -> Tensor:
    """Finite at 0, with an infinite derivative."""
    return x.sqrt()


def named(model: nn.Module) -> list[str]:
    return [path for path, _ in told(hookline.check(model, X), "nonfinite-gradient")]


def both(self: Any, x: Tensor) -> Tensor:
    hidden = self.trunk(x)
    return self.a(hidden) + self.b(hidden)


@pytest.mark.parametrize("guilty", ["a", "b"])
def test_of_two_heads_the_one_that_makes_it_is_named(guilty: str) -> None:
    heads = {"a": Gives(torch.tanh), "b": Gives(torch.tanh), guilty: Gives(root)}

    assert named(Held(both, trunk=zeros(), **heads)) == [guilty]


def test_head_that_takes_a_linear_layers_input_too_is_named() -> None:
    assert named(Held(both, trunk=zeros(), a=nn.Linear(4, 4), b=Gives(root))) == ["b"]


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x.view(8, 4, 4),
        lambda x: x.T,
        lambda x: x[:, None],
        lambda x: torch.stack([x, torch.ones_like(x)]),
        lambda x: torch.cat([x, torch.ones_like(x)]),
        lambda x: x + 0,
        lambda x: x.reshape(-1)[3:],
    ],
)
def test_what_only_moves_numbers_between_modules_is_not_accused(between: Any) -> None:
    model = Held(lambda self, x: self.b(between(self.trunk(x))), trunk=zeros(), b=Gives(root))

    assert named(model) == ["b"]


def test_view_for_one_of_two_heads_leaves_the_other_alone() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        hidden = self.trunk(x)
        return self.a(hidden).sum() + self.b(hidden.view(8, 4, 4)).sum()

    assert named(Held(forward, trunk=zeros(), a=Gives(torch.tanh), b=Gives(root))) == ["b"]


def test_own_code_between_two_modules_is_named() -> None:
    model = Held(lambda self, x: self.b(self.trunk(x).sqrt()), trunk=zeros(), b=Gives(torch.tanh))

    assert named(nn.Sequential(model)) == ["0"]


def test_own_code_beside_a_module_is_named() -> None:
    model = Held(lambda self, x: (lambda h: self.b(h) + h.sqrt())(self.trunk(x)), trunk=zeros(), b=Gives(torch.tanh))

    assert named(nn.Sequential(model)) == ["0"]


def test_module_behind_own_code_that_is_harmless_is_named() -> None:
    model = Held(lambda self, x: self.b(self.trunk(x).sigmoid()), trunk=zeros(), b=Gives(lambda x: (x * 0).sqrt()))

    assert named(nn.Sequential(model)) == ["0.b"]


def test_model_that_adds_blocks_to_a_stream_names_the_block() -> None:
    class Block(nn.Module):
        def __init__(self, make: Any) -> None:
            super().__init__()
            self.norm, self.make = nn.LayerNorm(4), Gives(make)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.make(self.norm(x))

    model = nn.Sequential(nn.Linear(4, 4), *(Block(torch.tanh) for _ in range(3)), nn.Linear(4, 4))
    model[2].make = Gives(lambda x: (x * 0).sqrt())

    assert named(model) == ["2.make"]


def two_heads() -> nn.Module:
    return Held(both, trunk=zeros(), a=Gives(torch.tanh), b=Gives(root))


def test_run_from_disk_lists_all_candidates(tmp_path: Path) -> None:
    model = two_heads()
    with hookline.watch(model, inputs="stats", grads=True) as run:
        model(X).sum().backward()
    run.save(tmp_path / "run")

    (found,) = hookline.check(hookline.load(tmp_path / "run")).of("nonfinite-gradient")
    assert found.path == "trunk"
    assert found.evidence["candidates"] == ["the backward of a", "the backward of b"]
    assert "it comes from one of 2: the backward of a, the backward of b" in found.message


def test_run_from_disk_does_not_accuse_own_code_alone(tmp_path: Path) -> None:
    model = Held(lambda self, x: self.b(self.trunk(x).view(8, 4, 4)), trunk=zeros(), b=Gives(root))
    with hookline.watch(model, inputs="stats", grads=True) as run:
        model(X).sum().backward()

    (found,) = hookline.check(run).of("nonfinite-gradient")
    assert "the backward of b" in found.evidence["candidates"]


def test_hidden_state_that_leaves_the_model_lists_what_comes_after_too() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = zeros(), Gives(torch.tanh)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.body(x)
            return self.head(hidden), hidden

    def loss(output: tuple[Tensor, Tensor]) -> Tensor:
        return output[0].sum() + output[1].square().sum(1).sqrt().mean()

    (found,) = hookline.check(Hidden(), X, loss=loss).of("nonfinite-gradient")
    assert "code after the model" in found.message


def test_gradients_are_bit_for_bit_the_same_under_a_check() -> None:
    torch.manual_seed(0)
    model = Held(both, trunk=nn.Linear(4, 4), a=nn.Linear(4, 4), b=nn.Sequential(nn.Tanh(), nn.Linear(4, 4)))
    model(X).square().sum().backward()
    plain = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with hookline.check(model):
        model(X).square().sum().backward()

    assert all(torch.equal(one, each.grad) for one, each in zip(plain, model.parameters(), strict=True))


def test_no_graph_is_kept_alive_by_a_check() -> None:
    import weakref

    model = two_heads()
    with hookline.check(model):
        output = model(X)
        node = weakref.ref(output)
        del output
        assert node() is None
