"""check and guard of models that accelerate offloads."""

import pytest
import torch
from torch import nn

import hookline
from hookline.errors import NonFiniteError

accelerate = pytest.importorskip("accelerate")
X = torch.linspace(-1, 1, 24).reshape(2, 3, 4)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.into, self.attention = nn.Linear(4, 4), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.into(x)
        return self.attention(h, h, h)[0]


def offloaded(model: nn.Module) -> nn.Module:
    return accelerate.cpu_offload(model, torch.device("cpu"), preload_module_classes=["MultiheadAttention"])


def with_a_nan(model: Attention) -> Attention:
    with torch.no_grad():
        model.attention.out_proj.weight[0, 0] = float("nan")
    return model


def test_offloaded_model_has_no_findings() -> None:
    model = accelerate.cpu_offload(nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4)), torch.device("cpu"))

    assert not [*hookline.check(model, torch.arange(5))]


def test_module_brought_in_by_one_around_it_counts_as_used() -> None:
    assert "never-called" not in {finding.rule for finding in hookline.check(offloaded(Attention()), X)}


def test_nan_in_an_offloaded_parameter_is_found() -> None:
    found = hookline.check(offloaded(with_a_nan(Attention())), X)

    assert found[0].rule == "nonfinite-parameter"
    assert found[0].path == "attention.out_proj"


def test_several_steps_of_an_offloaded_model_have_no_findings() -> None:
    model = offloaded(Attention())

    with hookline.check(model) as findings:
        for _ in range(3):
            model(X).square().mean().backward()

    assert not [*findings]
    assert any("that accelerate offloads" in line for line in findings.looked)


def test_guard_names_an_offloaded_parameter_that_is_not_finite() -> None:
    model = offloaded(with_a_nan(Attention()))

    with pytest.raises(NonFiniteError, match=r"Its own out_proj\.weight already had NaN or Inf"), hookline.guard(model):
        model(X)
