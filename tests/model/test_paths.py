"""Tests that a module's paths are those of `named_modules`, less what wrappers add."""

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from hookline import demo
from hookline.model.paths import paths, walk


class DistributedDataParallel(nn.Module):
    """Stands for PyTorch's: the same class name, the same attribute."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


class FullyShardedDataParallel(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._fsdp_wrapped_module = module


class Holder(nn.Module):
    """An ordinary class that happens to call its child `module`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def nested() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(2, 2))), nn.ReLU())


def names(model: nn.Module) -> list[str]:
    return [path for path, _ in walk(model)]


@pytest.mark.parametrize(
    "model", [nested(), demo.model(), nn.LSTM(2, 2), nn.TransformerEncoderLayer(4, 2)], ids=lambda m: type(m).__name__
)
def test_paths_and_their_order_are_those_of_named_modules(model: nn.Module) -> None:
    assert list(walk(model)) == list(model.named_modules())


def test_a_shared_module_is_met_once_for_each_of_its_paths() -> None:
    shared = nn.Sequential(nn.ReLU())
    model = nn.Sequential(shared, nn.Linear(2, 2), nn.Sequential(shared))

    assert list(walk(model)) == list(model.named_modules(remove_duplicate=False))


def test_a_shared_module_has_all_of_its_paths_the_first_of_them_in_front() -> None:
    shared = nn.Sequential(nn.ReLU())
    model = nn.Sequential(shared, nn.Sequential(shared))

    assert dict(paths(model))[shared] == ("0", "1.0")
    assert dict(paths(model))[shared[0]] == ("0.0", "1.0.0")


def test_paths_knows_each_module_once() -> None:
    model = demo.model()

    assert [module for module, _ in paths(model)] == list(model.modules())


def test_a_child_that_is_none_has_no_path() -> None:
    model = nested()
    model.register_module("absent", None)

    assert names(model) == names(nested())


def test_a_model_without_children_has_the_one_empty_path() -> None:
    assert names(nn.ReLU()) == [""]


@pytest.mark.parametrize(
    "wrap",
    [
        DistributedDataParallel,
        nn.DataParallel,
        FullyShardedDataParallel,
        checkpoint_wrapper,
        lambda model: torch.compile(model, backend="eager"),
        lambda model: torch.compile(DistributedDataParallel(model), backend="eager"),
        lambda model: DistributedDataParallel(torch.compile(model, backend="eager")),
    ],
    ids=["ddp", "data parallel", "fsdp", "checkpoint", "compiled", "compiled ddp", "ddp of compiled"],
)
def test_a_wrapped_model_has_the_paths_of_the_bare_one(wrap) -> None:
    assert list(dict.fromkeys(names(wrap(nested())))) == names(nested())


def test_a_wrapped_part_of_a_model_has_the_path_of_the_bare_part() -> None:
    model = nested()
    model[1] = DistributedDataParallel(checkpoint_wrapper(model[1]))

    assert list(dict.fromkeys(names(model))) == names(nested())


def test_a_child_called_module_keeps_its_name_in_an_ordinary_class() -> None:
    assert names(Holder(nn.Sequential(nn.ReLU()))) == ["", "module", "module.0"]


def test_a_module_that_contains_itself_is_entered_once() -> None:
    model = nested()
    model.register_module("me", model)

    assert names(model) == [*names(nested()), "me"]
    assert dict(paths(model))[model] == ("", "me")


def test_modules_that_contain_each_other_are_entered_once_per_path() -> None:
    left, right = nn.Module(), nn.Module()
    left.right, right.left = right, left

    assert names(left) == ["", "right", "right.left"]
