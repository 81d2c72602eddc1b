"""Global full backward pre-hooks of PyTorch's under a watch and under our own hooks."""

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_full_backward_hook, register_module_full_backward_pre_hook

import hookline


@pytest.fixture(autouse=True)
def kind_of_global_hooks(monkeypatch):
    """Which kind of global backward hooks there are, PyTorch remembers after the last is gone."""
    monkeypatch.setattr(torch.nn.modules.module, "_global_is_full_backward_hook", None)


def gradients(register, seen):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    x = torch.ones(2, 3, requires_grad=True)

    def hook(module, *given):
        seen.append(type(module).__name__)

    handle = register(hook)
    try:
        yield model, x
    finally:
        handle.remove()


@pytest.mark.parametrize("register", [register_module_full_backward_pre_hook, register_module_full_backward_hook])
@pytest.mark.parametrize("attach", [hookline.watch, lambda model: hookline.on(model, "**", after=lambda call: None)])
def test_they_run_once_for_each_hooked_module(register, attach):
    seen = []
    for model, x in gradients(register, seen):
        with attach(model):
            model(x).sum().backward()
    assert sorted(seen) == ["Linear", "ReLU", "Sequential"]


def test_a_watch_records_the_gradients_that_a_global_pre_hook_changes():
    model, x = nn.Sequential(nn.Identity(), nn.Identity()), torch.ones(2, requires_grad=True)

    def double(module, gradient):
        return (2 * gradient[0],) if module is model[0] else None

    handle = register_module_full_backward_pre_hook(double)
    with hookline.watch(model, grads="input", keep="copy") as run:
        model(x).sum().backward()
    handle.remove()
    assert x.grad.tolist() == [2, 2]
    assert run["0"].args[0].grad.value.tolist() == [2, 2]


def test_the_gradient_of_an_output_that_is_changed_in_place_afterwards_is_recorded():
    class Doubles(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            return self.layer(2 * x).mul_(3).exp()

    model, x = Doubles(), torch.ones(2, requires_grad=True)
    with hookline.watch(model, grads=True, keep="copy") as run:
        model(x).sum().backward()
    assert torch.allclose(run["layer"].output.grad.value, 3 * torch.full((2,), 6.0).exp())
