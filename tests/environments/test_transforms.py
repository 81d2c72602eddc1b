"""Watched models under torch.func: the transforms give what they give without a watch."""

import pytest
import torch
from torch import nn

import hookline

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # forward mode uses it

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
GRADS = [False, True, "input"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))


def loss(model):
    return lambda x: model(x).square().sum()


TRANSFORMS = {
    "functional_call": lambda model: torch.func.functional_call(
        model, {name: 2 * value for name, value in model.named_parameters()}, (X,)
    ),
    "grad": lambda model: torch.func.grad(loss(model))(X),
    "jvp": lambda model: torch.stack(torch.func.jvp(model, (X,), (X + 1,))),
    "vjp": lambda model: torch.func.vjp(model, X)[1](X)[0],
    "jacrev": lambda model: torch.func.jacrev(model)(X),
    "jacfwd": lambda model: torch.func.jacfwd(model)(X),
    "hessian": lambda model: torch.func.hessian(loss(model))(X),
    "vmap of grad": lambda model: torch.vmap(torch.func.grad(loss(model)))(X),
}


@pytest.mark.parametrize("grads", GRADS)
@pytest.mark.parametrize("name", ["functional_call", "grad", "jvp", "vjp", "vmap of grad"])
def test_a_transform_of_a_watched_model_gives_the_same_bits(model, name, grads):
    plain = TRANSFORMS[name](model)
    with hookline.watch(model, grads=grads) as run:
        assert torch.equal(TRANSFORMS[name](model), plain)
    assert [call.path for call in run][:4] == ["", "0", "1", "2"]


@pytest.mark.parametrize("grads", [False, True])
@pytest.mark.parametrize("name", ["jacrev", "jacfwd", "hessian"])
def test_so_do_those_of_many_derivatives(model, name, grads):
    plain = TRANSFORMS[name](model)
    with hookline.watch(model, grads=grads):
        assert torch.equal(TRANSFORMS[name](model), plain)


@pytest.mark.parametrize("grads", [False, True])
def test_vmap_of_a_watched_model_gives_the_same_bits(model, grads):
    plain = torch.vmap(model)(X)
    with hookline.watch(model, grads=grads):
        assert torch.equal(torch.vmap(model)(X), plain)


def test_inside_vmap_a_tensor_is_one_sample_without_statistics(model):
    with hookline.watch(model) as run:
        torch.vmap(model)(X)
    assert (run["0"].output.shape, run["0"].output.stats) == ((8,), None)


def test_gradients_of_arguments_inside_of_vmap_are_one_clear_error(model):
    with hookline.watch(model, grads="input"), pytest.raises(hookline.GradientError, match=r"inside torch\.vmap"):
        torch.vmap(model)(X)


def test_functional_call_is_recorded_with_the_parameters_that_it_was_given(model):
    with hookline.watch(model, keep="copy") as run:
        torch.func.functional_call(model, {"0.bias": torch.full((8,), 100.0)}, (X,))
    assert run["0"].output.value.min() > 50


def test_grad_records_the_gradients_that_arrive(model):
    with hookline.watch(model, grads=True) as run:
        torch.func.grad(loss(model))(X)
    assert all(call.output.grad is not None for call in run)


def test_tensor_kept_inside_a_transform_cannot_be_saved(model, tmp_path):
    with hookline.watch(model, keep="copy") as run:
        torch.vmap(model)(X)
    with pytest.raises(hookline.StoreError, match=r"this is one of a transform of torch\.func"):
        run.save(tmp_path / "run")
