"""diff of models that accelerate offloads, or that have parameters without data."""

import tempfile
from collections.abc import Callable

import pytest
import torch
from torch import nn

import hookline
from hookline.errors import CompareError

accelerate = pytest.importorskip("accelerate")
CPU = torch.device("cpu")
X = torch.linspace(-1, 1, 24).reshape(6, 4)
Offload = Callable[[nn.Module], nn.Module]


def network(*, changed: bool = False) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    )
    if changed:
        with torch.no_grad():
            model[2][2].weight *= 1.2
    return model


def to_memory(model: nn.Module) -> nn.Module:
    return accelerate.cpu_offload(model, CPU)


def to_memory_with_buffers(model: nn.Module) -> nn.Module:
    return accelerate.cpu_offload(model, CPU, offload_buffers=True)


def to_disk(model: nn.Module) -> nn.Module:
    return accelerate.disk_offload(model, tempfile.mkdtemp(), CPU)


def some_to_disk(model: nn.Module) -> nn.Module:
    places = {"0": "cpu", "1": "cpu", "2": "disk"}
    folder = tempfile.mkdtemp()
    return accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=folder, force_hooks=True)


OFFLOADED = pytest.mark.parametrize("offload", [to_memory, to_memory_with_buffers, to_disk, some_to_disk])
pytestmark = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")


@OFFLOADED
def test_offloaded_model_equals_the_plain_one(offload: Offload) -> None:
    for found in (hookline.diff(network(), offload(network()), X), hookline.diff(offload(network()), network(), X)):
        assert found.identical
        assert not found.weights
        assert not found.notes


@OFFLOADED
def test_changed_weight_of_offloaded_model_is_the_culprit(offload: Offload) -> None:
    found = hookline.diff(network(), offload(network(changed=True)), X)

    assert [pair.path for pair in found.culprits] == ["2.2"]
    assert "weight differs: by up to" in found.culprit.why
    assert "1.2 times as large" in found.culprit.why
    assert "code" not in [cause.kind for cause in found.culprit.causes]


@OFFLOADED
def test_changed_weight_of_two_offloaded_models_is_the_culprit(offload: Offload) -> None:
    found = hookline.diff(offload(network(changed=True)), offload(network()), X)

    assert found.culprit.path == "2.2"
    assert [weight.name_a for weight in found.weights] == ["2.2.weight"]


def test_weights_of_offloaded_models_match_modules_of_other_names() -> None:
    layers = list(network())
    port = nn.Sequential()
    for name, layer in zip(("into", "norm", "out"), layers, strict=True):
        port.add_module(name, layer)

    found = hookline.diff(network(), to_disk(port), X)

    assert dict(found.mapping)["2.2"] == "out.2"
    assert found.identical


def test_gradients_that_accelerate_does_not_keep_are_noted() -> None:
    found = hookline.diff(network(), to_memory(network()), X, grads=True)

    assert found.same
    assert any(
        "gradients of parameters that accelerate offloads in the second: 0.weight" in note for note in found.notes
    )


def test_buffers_that_accelerate_holds_are_restored() -> None:
    held = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    model = network()
    kept = model.state_dict()
    to_memory_with_buffers(model)

    found = hookline.diff(network(changed=True), model, X)

    assert found.culprit.path == "2.2"
    stored = {name: model[1]._hf_hook.weights_map[name] for name in ("running_mean", "num_batches_tracked")}
    assert all(torch.equal(stored[name], held[f"1.{name}"]) for name in stored)
    assert kept.keys() == held.keys()


def test_updates_that_disk_offload_loses_are_noted() -> None:
    offloaded = accelerate.disk_offload(network(), tempfile.mkdtemp(), CPU, offload_buffers=True)

    found = hookline.diff(network(), offloaded, X)

    assert found.same
    assert any("reads from disk for each call: 1.running_mean" in note for note in found.notes)


def test_offloaded_model_keeps_its_hooks_after_a_diff() -> None:
    model = to_memory(network(changed=True))
    maps = [module._hf_hook.weights_map for module in (model[0], model[2][2])]

    hookline.diff(network(), model, X)

    assert all(one is other._hf_hook.weights_map for one, other in zip(maps, (model[0], model[2][2]), strict=True))
    assert torch.equal(model(X), network(changed=True)(X))


def test_parameters_without_data_are_one_error() -> None:
    empty = network()
    empty[2][2] = nn.Linear(8, 4, device="meta")

    with pytest.raises(CompareError, match=r"of the second have no data, on the meta device: 2\.2\.weight, 2\.2\.bias"):
        hookline.diff(network(), empty, X)


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)
        nn.init.eye_(self.used.weight)
        nn.init.zeros_(self.used.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


def test_unused_parameters_without_data_are_noted() -> None:
    model = Unused()
    model.spare.to("meta")

    found = hookline.diff(model, Unused(), X)

    assert found.same
    assert any("spare.weight, spare.bias; these are not compared" in note for note in found.notes)
