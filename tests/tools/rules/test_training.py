"""Steps of optimizers: how far they move a weight, and what they are made of."""

import torch
from planted.parts import X, told
from torch import nn

import hookline


def test_step_that_evaluates_its_closure_many_times_may_go_far() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    optimizer = torch.optim.LBFGS(model.parameters(), lr=1)
    labels = torch.randint(4, (32,))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), labels)
        loss.backward()
        return loss

    with hookline.check(model) as findings:
        for _ in range(3):
            optimizer.step(closure)

    assert list(findings) == []


def test_step_that_evaluates_its_closure_once_may_not() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e3)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        return loss

    with hookline.check(model) as findings:
        optimizer.step(closure)

    assert told(findings, "large-update") == [("0", "warning")]
