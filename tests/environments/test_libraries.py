"""Libraries that look modules up by type give of a watched model what they give of the plain one."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.ao.quantization import fuse_modules, quantize_dynamic

import hookline

captum = pytest.importorskip("captum.attr")
opacus = pytest.importorskip("opacus")
pytestmark = pytest.mark.filterwarnings("ignore")


class Image(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.pool = nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2)
        self.fc, self.soft = nn.Linear(36, 5), nn.Softmax(1)

    def forward(self, x):
        return self.soft(self.fc(self.pool(self.relu(self.conv(x))).flatten(1)))


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def rows():
    return torch.randn(2, 4, generator=torch.Generator().manual_seed(0))


def both(model, use):
    """What `use()` gives without a watch and with one."""
    plain = use()
    with hookline.watch(model):
        return plain, use()


def test_captums_deep_lift_gives_the_same():
    torch.manual_seed(0)
    model, x = Image().eval(), torch.randn(2, 1, 8, 8)
    plain, watched = both(model, lambda: captum.DeepLift(model).attribute(x, torch.zeros_like(x), target=1))
    assert torch.equal(plain, watched)


def test_captums_lrp_gives_the_same(rows):
    model = mlp().eval()
    plain, watched = both(model, lambda: captum.LRP(model).attribute(rows, target=1))
    assert torch.equal(plain, watched)


def test_opacus_samples_the_same_gradients(rows):
    model = mlp()

    def gradients():
        twin = copy.deepcopy(model)
        with hookline.watch(twin, grads=True) if watched else warnings.catch_warnings():
            opacus.GradSampleModule(twin)(rows).sum().backward()
        return [parameter.grad_sample for parameter in twin.parameters()]

    watched = False
    plain = gradients()
    watched = True
    assert all(torch.equal(one, other) for one, other in zip(plain, gradients(), strict=True))


def test_opacus_finds_the_same_modules_it_does_not_take():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    plain, watched = both(model, lambda: [str(error) for error in opacus.validators.ModuleValidator.validate(model)])
    assert plain == watched != []


def test_a_watched_model_is_quantized_in_place(rows):
    expected = quantize_dynamic(mlp(), {nn.Linear})(rows)
    model = mlp()
    with hookline.watch(model):
        quantize_dynamic(model, {nn.Linear}, inplace=True)
        assert torch.equal(model(rows), expected)
    assert type(model[0]).__name__ == "Linear"
    assert type(model[0]) is not nn.Linear


def test_modules_of_a_watched_model_are_fused():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).eval()
    plain, watched = both(model, lambda: fuse_modules(model, [["0", "1", "2"]]))
    assert [type(module) for module in plain.modules()] == [type(module) for module in watched.modules()]


def test_states_of_watched_models_are_stacked():
    torch._dynamo.reset()  # graphs of other tests may know the classes
    models = [mlp(), mlp()]
    with hookline.watch(models[0]):
        parameters, _ = torch.func.stack_module_state(models)
    assert parameters["0.weight"].shape == (2, 8, 4)
