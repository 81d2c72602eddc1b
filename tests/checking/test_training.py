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


def trained(*, zero: str = "yes", schedule: object = None, steps: int = 6) -> hookline.Findings:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    following = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule) if callable(schedule) else None
    with hookline.check(model) as findings:
        for number in range(steps):
            if zero == "yes" or (zero == "every second" and number % 2 == 0):
                optimizer.zero_grad()
            model(X).square().mean().backward()
            optimizer.step()
            if following is not None:
                following.step()
    return findings


def test_gradients_that_add_up_over_all_steps_are_found() -> None:
    (found,) = trained(zero="no").of("no-zero-grad")

    assert (found.path, found.severity, found.evidence["steps"]) == ("", "warning", 6)


def test_two_steps_say_nothing_about_zero_grad() -> None:
    assert told(trained(zero="no", steps=2), "no-zero-grad") == []
    assert told(trained(zero="no", steps=3), "no-zero-grad") == [("", "warning")]


def test_steps_of_which_every_second_starts_anew_are_fine() -> None:
    assert told(trained(zero="every second"), "no-zero-grad") == []


def test_learning_rate_that_ends_in_the_block_is_found() -> None:
    (found,) = trained(schedule=lambda step: max(0.0, 1 - step / 3)).of("learning-rate-ended")

    assert (found.severity, found.evidence["idle"], found.evidence["steps"]) == ("warning", 3, 6)


def test_learning_rate_of_zero_in_the_last_step_alone_is_a_note() -> None:
    assert told(trained(schedule=lambda step: 1 - step / 5), "learning-rate-ended") == [("", "note")]


def test_learning_rate_that_comes_back_has_not_ended() -> None:
    assert told(trained(schedule=lambda step: float(step in (0, 5))), "learning-rate-ended") == []
