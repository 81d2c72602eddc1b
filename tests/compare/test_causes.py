"""Why: what of two modules is not the same."""

import functools
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import hookline
from hookline.compare.causes import module_causes
from hookline.compare.weights import differing_weights, relation


class Holds(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        (nn.Dropout(0.1), nn.Dropout(0.2), "p 0.1 vs 0.2"),
        (nn.GELU(), nn.GELU("tanh"), "approximate 'none' vs 'tanh'"),
        (nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, dilation=2), "dilation (1, 1) vs (2, 2)"),
        (Holds(functional.relu), Holds(functional.silu), "value relu vs silu"),
        (
            Holds(functools.partial(functional.gelu, approximate="none")),
            Holds(functools.partial(functional.gelu, approximate="tanh")),
            "value gelu with {'approximate': 'none'} vs gelu with {'approximate': 'tanh'}",
        ),
        (Holds(torch.ones(2)), Holds(torch.zeros(2)), "value differs: by up to 1, 1 of the norm"),
        (Holds(torch.float32), Holds(torch.float16), "value torch.float32 vs torch.float16"),
        (nn.Linear(2, 2), nn.Linear(2, 2).double(), "dtype float32 vs float64"),
        (nn.ReLU(), nn.GELU(), "class ReLU vs GELU"),
        (nn.Identity(), nn.ELU(), "class Identity vs ELU"),
        (nn.Dropout().train(), nn.Dropout().eval(), "in train mode vs eval mode"),
    ],
)
def test_what_two_modules_differ_in_is_told(one: nn.Module, other: nn.Module, says: str) -> None:
    assert [str(cause) for cause in module_causes(one, other)] == [says]


@pytest.mark.parametrize("value", [1, (1, 2), "text", functional.relu, torch.ones(2), lambda x: x + 1, object()])
def test_what_is_the_same_is_not_told(value: Any) -> None:
    assert module_causes(Holds(value), Holds(value)) == []
    assert module_causes(Holds(lambda x: x + 1), Holds(lambda x: x + 1)) == []


def test_lambdas_of_other_code_are_told_apart() -> None:
    assert [each.kind for each in module_causes(Holds(lambda x: x + 1), Holds(lambda x: x + 2))] == ["attribute"]


def test_entries_of_a_configuration_are_named() -> None:
    class Configuration:
        def __init__(self, **entries: Any) -> None:
            self.entries = entries

        def to_dict(self) -> dict[str, Any]:
            return self.entries

    found = module_causes(Holds(Configuration(act="gelu", size=4)), Holds(Configuration(act="relu", size=4)))

    assert [str(cause) for cause in found] == ["value.act 'gelu' vs 'relu'"]


def test_uncalled_inner_module_counts_and_called_does_not() -> None:
    one, other = nn.Sequential(nn.Dropout(0.1)), nn.Sequential(nn.Dropout(0.2))

    assert [str(cause) for cause in module_causes(one, other)] == ["0.p 0.1 vs 0.2"]
    assert module_causes(one, other, called=["0"]) == []


A = torch.tensor([[1.0, 2.0], [3.0, 5.0]])


@pytest.mark.parametrize(
    ("b", "says"),
    [
        (A.t(), "transposed"),
        (-A, "negated"),
        (A * 0.5, "0.5 times as large"),
        (A.flip(1), "the same numbers in another order"),
        (A + torch.tensor([[0.0, 0.0], [0.0, 1.0]]), "1 of 4 elements"),
        (A + 1, ""),
        (A * torch.nan, ""),
        (A * torch.inf, ""),
        (A.double(), ""),
    ],
)
def test_what_one_weight_is_of_another(b: torch.Tensor, says: str) -> None:
    assert relation(A, b) == says


def test_differing_weights_are_listed_and_transposed_not() -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    other.load_state_dict(one.state_dict())
    paths = {"": ""}
    assert differing_weights({"": one}, {"": other}, paths) == []

    turned = nn.Module()
    turned.weight, turned.bias = nn.Parameter(one.weight.detach().t().clone()), one.bias
    assert differing_weights({"": one}, {"": turned}, paths) == []

    with torch.no_grad():
        other.bias += 1
    found = differing_weights({"": one}, {"": other}, paths)
    assert [(each.name_a, each.kind, each.difference.absolute) for each in found] == [
        ("bias", "parameter", pytest.approx(1))
    ]


def test_a_weight_that_only_one_has_is_listed() -> None:
    found = differing_weights({"": nn.Linear(2, 2)}, {"": nn.Linear(2, 2, bias=False)}, {"": ""})

    assert ("bias", None) in {(each.name_a, each.name_b) for each in found}
    assert "only the first has it" in str(next(each for each in found if each.name_b is None))


def test_rounded_weights_are_the_same() -> None:
    one = nn.Linear(3, 2)
    other = nn.Linear(3, 2).bfloat16()
    other.load_state_dict(one.state_dict())

    assert differing_weights({"": one}, {"": other}, {"": ""}) == []


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_classes_of_one_name_are_told_apart_by_module() -> None:
    from torch.ao.nn.quantized import Linear

    says = [str(cause) for cause in module_causes(nn.Linear(2, 2), Linear(2, 2)) if cause.kind == "class"]

    assert says == ["class torch.nn.Linear vs torch.ao.nn.quantized.Linear"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_transposed_weight_in_another_dtype_is_told(dtype: torch.dtype) -> None:
    a = torch.randn(5, 5)

    assert relation(a, a.t().to(dtype)) == "transposed"


@pytest.mark.graph
def test_stand_in_class_is_not_told() -> None:
    watched, other = (nn.Sequential(nn.Linear(2, 2)) for _ in range(2))
    watched.compile(backend="eager")

    with hookline.on(watched, "**", after=lambda call: None):
        watched(torch.ones(1, 2))
        assert type(watched[0]) is not nn.Linear
        assert module_causes(watched[0], other[0]) == []
