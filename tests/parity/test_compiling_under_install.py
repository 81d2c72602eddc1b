"""Code that dynamo and torch.jit take from stock PyTorch they take under install() and everywhere() too."""

import pytest
import torch
from torch import nn

import hookline

X = torch.ones(2, 3)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.ReLU()

    def forward(self, x):
        return self.layer(x)


def makes_one(x):
    return nn.ReLU()(x) + 1


def makes_several(x):
    return nn.Sequential(nn.ReLU(), nn.Identity())(x) + 1


def makes_its_own(x):
    return Own()(x)


def makes_a_parameter(x):
    return nn.Linear(3, 3)(x).shape[0] + x


def clears_hooks(x):
    module = nn.ReLU()
    module._forward_hooks = type(module._forward_hooks)()
    return module(x)


HEIGHTS = [hookline.install, lambda: hookline.everywhere(before=lambda call: None)]


@pytest.fixture(params=HEIGHTS, ids=["install", "everywhere"])
def height(request):
    torch._dynamo.reset()
    with request.param():
        yield
    torch._dynamo.reset()


@pytest.mark.graph
@pytest.mark.parametrize("fullgraph", [False, True], ids=["breaks", "whole"])
@pytest.mark.parametrize("function", [makes_one, makes_several, makes_its_own])
def test_code_that_makes_a_module_is_compiled(height, function, fullgraph):
    compiled = torch.compile(function, backend="eager", fullgraph=fullgraph)
    assert torch.equal(compiled(X), function(X))
    assert torch.equal(compiled(X), function(X))


def test_code_that_clears_hooks_runs(height):
    assert torch.equal(torch.compile(clears_hooks, backend="eager")(X), clears_hooks(X))


@pytest.mark.graph
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_code_that_makes_a_parameter_runs(height):
    assert torch.equal(torch.compile(makes_a_parameter, backend="eager")(X), makes_a_parameter(X))


@pytest.mark.graph
def test_a_module_made_in_a_graph_has_hooks_that_are_seen_to_change(height):
    made = []

    def make(x):
        made.append(nn.ReLU())
        return made[0](x)

    torch.compile(make, backend="eager")(X)
    made[0].register_forward_hook(lambda module, args, output: output + 1)
    assert torch.equal(made[0](X), X + 1)
    made[0]._forward_hooks = type(made[0]._forward_hooks)()
    assert torch.equal(made[0](X), X)


@pytest.mark.slow
def test_strict_export_gives_the_same_program(height):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    assert "linear" in torch.export.export(model, (X,), strict=True).graph_module.code


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_scripted_function_calls_a_module(height):
    layer = nn.ReLU()

    def call(x: torch.Tensor):
        return layer(x)

    assert torch.equal(torch.jit.script(call)(X), X)
