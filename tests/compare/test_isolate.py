"""Modules run alone on what the reference's were given: the verdicts, and that nothing is left behind."""

import copy
import random
from typing import Any

import torch
from torch import Tensor, nn
from toys import Gives

import hookline
from hookline.testing import assert_unhooked

X = torch.linspace(-1, 1, 12).reshape(3, 4)


def culprits(a: nn.Module, b: nn.Module, *args: Any, **options: Any) -> list[str]:
    return [pair.path for pair in hookline.diff(a, b, *args, **options).culprits]


def test_one_that_passes_a_difference_on_makes_none() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    other = copy.deepcopy(model)
    nn.init.normal_(other[0].weight)

    found = hookline.diff(model, other, X)

    assert [pair.is_culprit for pair in found] == [False, True, False, False]


def test_several_culprits_stand_in_call_order() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))
    other = copy.deepcopy(model)
    for place in (3, 1):
        nn.init.normal_(other[place].weight)

    assert culprits(model, other, X) == ["1", "3"]


def test_only_the_weights_or_the_computation_too() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(nn.Linear(4, 4))
    weights, both = nn.Sequential(nn.Linear(4, 4)), nn.Sequential(Doubled(4, 4))

    assert "too" not in hookline.diff(model, weights, X).culprit.why
    assert "with the reference's weights its outputs differ too" in hookline.diff(model, both, X).culprit.why


def test_arguments_that_are_changed_in_place_do_not_disturb() -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.add_(1).mul_(2)

    model = nn.Sequential(InPlace(), nn.Linear(4, 4), InPlace())
    x = X.clone()

    assert not hookline.diff(model, copy.deepcopy(model), x)
    assert torch.equal(x, X)
    other = copy.deepcopy(model)
    nn.init.normal_(other[1].weight)
    assert culprits(model, other, x) == ["1"]


def test_random_modules_start_from_the_state_of_the_reference() -> None:
    model = nn.Sequential(
        nn.Linear(4, 4), nn.Dropout(0.5), Gives(lambda x: x * random.random()), nn.Dropout(0.5), nn.Linear(4, 2)
    )
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].bias += 1
    state = torch.get_rng_state(), random.getstate()

    assert culprits(model, other, X) == ["0"]
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]


def test_both_models_are_afterwards_what_they_were() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    other = copy.deepcopy(model)
    other[0].eps = 1.0

    assert culprits(model, other, X, grads=True) == ["0"]

    for each in (model, other):
        assert each[0].num_batches_tracked == 0
        assert torch.equal(each[0].running_mean, torch.zeros(4))
        assert each[1].weight.grad is None
        assert_unhooked(each)


def test_partner_is_called_by_its_own_argument_names() -> None:
    class Ours(nn.Module):
        def forward(self, x: Tensor, *, scale: float) -> Tensor:
            return x * scale

    class Theirs(nn.Module):
        def forward(self, factor: float, hidden: Tensor) -> tuple[Tensor]:
            return (hidden * factor + 1,)

    class Around(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, scale=2.0) if isinstance(self.inner, Ours) else self.inner(2.0, hidden=x)[0]

    found = hookline.diff(Around(Ours()), Around(Theirs()), X)

    assert found.culprit is not None
    assert found.culprit.path == "inner"
    assert found.notes == ()


def test_partner_that_cannot_run_alone_is_judged_by_record() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("I run once")
            return x + 1

    found = hookline.diff(nn.Sequential(nn.Identity(), Gives(lambda x: x)), nn.Sequential(nn.Identity(), Alone()), X)

    assert found.culprit is not None
    assert found.culprit.path == "1"
    assert "I run once" in found.notes[0]


def test_modules_that_both_models_share_are_no_suspects() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    other = nn.Sequential(nn.Linear(4, 4), model[1], model[2])

    assert culprits(model, other, X) == ["0"]
    assert not hookline.diff(model, model, X)
