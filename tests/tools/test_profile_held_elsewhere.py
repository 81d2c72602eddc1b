"""profile of models whose weights are not plain tensors in place: offloaded by accelerate, quantized, on meta."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import return_and_correct_aliasing

import hookline
from hookline import StoreError

accelerate = pytest.importorskip("accelerate")
aten = torch.ops.aten
X = torch.ones(2, 4)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), nn.Linear(4, 2)).eval()


def to_memory(folder: Path) -> nn.Module:
    return accelerate.cpu_offload(network(), torch.device("cpu"))


def to_disk(folder: Path) -> nn.Module:
    return accelerate.disk_offload(network(), str(folder), torch.device("cpu"))


def some_to_disk(folder: Path) -> nn.Module:
    places = {"0": "cpu", "1": "disk", "2": "cpu"}
    return accelerate.dispatch_model(network(), places, main_device="cpu", offload_dir=str(folder), force_hooks=True)


OFFLOADED = pytest.mark.parametrize("make", [to_memory, to_disk, some_to_disk])
pytestmark = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")


@pytest.mark.slow
@OFFLOADED
@pytest.mark.parametrize("options", [{}, {"backward": False}, {"meta": True}], ids=str)
def test_an_offloaded_model_costs_what_it_does_in_place(
    tmp_path: Path, make: Callable[[Path], nn.Module], options: dict[str, Any]
) -> None:
    found = hookline.profile(make(tmp_path), X, repeat=1, **options)
    wanted = hookline.profile(network(), X, repeat=1, **options)
    names = ("path", "flops", "backward_flops", "parameters", "parameter_bytes")

    assert [[getattr(cost, name) for name in names] for cost in found] == [
        [getattr(cost, name) for name in names] for cost in wanted
    ]
    assert found.repeat == (0 if options.get("meta") else 1)


@pytest.mark.slow
@OFFLOADED
def test_an_offloaded_model_is_afterwards_as_it_was(tmp_path: Path, make: Callable[[Path], nn.Module]) -> None:
    model = make(tmp_path)
    before = model(X), [parameter.device for parameter in model.parameters()], [*map(dict, map(vars, model.modules()))]

    hookline.profile(model, X, repeat=1)
    hookline.profile(model, X, meta=True)

    assert torch.equal(model(X), before[0])
    assert [parameter.device for parameter in model.parameters()] == before[1]
    assert [vars(module).get("_hf_hook") for module in model.modules()] == [each.get("_hf_hook") for each in before[2]]
    assert [vars(module).get("forward") for module in model.modules()] == [each.get("forward") for each in before[2]]


@pytest.mark.slow
def test_a_model_without_weights_is_counted_and_not_timed() -> None:
    found = hookline.profile(network().to("meta"), X)

    assert found.repeat == 0
    assert found.total.flops == hookline.profile(network(), X, repeat=1).total.flops


class Quantized(Tensor):
    """A weight as quantizing libraries have it: a few operations, and an error for any other."""

    ints: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, ints: Tensor, scale: Tensor) -> Any:
        return Tensor._make_wrapper_subclass(cls, ints.shape, dtype=scale.dtype, device=ints.device)

    def __init__(self, ints: Tensor, scale: Tensor) -> None:
        self.ints, self.scale = ints, scale

    def __tensor_flatten__(self) -> Any:
        return ["ints", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, parts: Any, context: Any, size: Any, stride: Any) -> Any:
        return cls(parts["ints"], parts["scale"])

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.linear:
            source, weight, *bias = args
            return func(source, weight.ints.to(weight.scale.dtype) * weight.scale, *bias)
        return super().__torch_function__(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any, kwargs: Any = None) -> Any:
        if func in (aten.detach.default, aten.alias.default):
            new = cls(func(args[0].ints), func(args[0].scale))
            return return_and_correct_aliasing(func, args, kwargs or {}, new)
        raise NotImplementedError(f"attempting to run unimplemented operator/function: {func}")


def quantized(layer: nn.Linear) -> nn.Linear:
    weight = layer.weight.detach()
    scale = weight.abs().max() / 127
    layer.weight = nn.Parameter(Quantized((weight / scale).round().to(torch.int8), scale), requires_grad=False)
    return layer


@pytest.mark.parametrize("options", [{}, {"backward": False}, {"meta": True}], ids=str)
def test_a_quantized_model_is_profiled(options: dict[str, Any]) -> None:
    found = hookline.profile(nn.Sequential(quantized(nn.Linear(4, 4)), nn.ReLU()), X, repeat=1, **options)

    assert (found["0"].flops, found["0"].parameters) == (2 * 2 * 4 * 4, 20)
    assert found["0"].parameter_bytes == 16 + 4 + 4 * 4


def test_a_quantized_buffer_is_profiled_and_put_back() -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", quantized(nn.Linear(4, 4)).weight.detach())

        def forward(self, x: Tensor) -> Tensor:
            self.table.scale.mul_(2)
            return nn.functional.linear(x, self.table)

    model = Held()
    before = model.table.scale.clone()
    hookline.profile(model, X.clone().requires_grad_(), repeat=1)

    assert torch.equal(model.table.scale, before)


def test_a_kept_quantized_tensor_cannot_be_saved_and_is_named(tmp_path: Path) -> None:
    layer = quantized(nn.Linear(4, 4))
    model = nn.Identity()
    with hookline.watch(model, keep="tensor") as run:
        model(layer.weight)

    with pytest.raises(StoreError, match=r"0\.output cannot be saved: only dense tensors can be, and this is one"):
        run.save(tmp_path / "run")
