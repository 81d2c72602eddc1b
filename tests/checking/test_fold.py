"""After the first NaN one finding stands, with what follows from it under it, and with where the NaN lies."""

import math
from typing import Any

import pytest
import torch
from planted.parts import Held, told
from torch import Tensor, nn
from torch.optim import SGD
from toys import Gives

import hookline

NAN = math.nan


def train(model: nn.Module, batches: list[Tensor], *, loss: Any = lambda output: output.square().mean()) -> Any:
    optimizer = SGD(model.parameters(), lr=0.1)
    with hookline.check(model) as findings:
        for batch in batches:
            optimizer.zero_grad()
            loss(model(batch)).backward()
            optimizer.step()
    return findings


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(12)))


def test_bad_batch_is_one_finding_and_the_spoiled_weights_stand_under_it() -> None:
    batches = [torch.randn(8, 4) for _ in range(4)]
    batches[1][3] = NAN
    findings = train(layers(), batches)

    (found,) = findings.at_least("error")
    assert (found.rule, found.call) == ("nonfinite-input", 1)
    assert {each.rule for each in found.consequences} == {"nonfinite-parameter"}
    assert len(found.consequences) == 24
    assert str(found).endswith("at [3, :] (+ 24 that follow from it) [nonfinite-input]")


def test_parameters_that_one_step_spoiled_are_one_finding() -> None:
    findings = train(layers(), [torch.randn(8, 4)] * 3, loss=lambda output: output.sum() * 1e38)

    (found,) = findings.at_least("error")
    assert found.rule in ("nonfinite-parameter", "nonfinite-gradient")


def test_bad_gradient_of_a_parameter_comes_before_its_consequences() -> None:
    class Rooted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.scale.sqrt()

    findings = train(nn.Sequential(nn.Linear(4, 4), Rooted()), [torch.randn(8, 4)] * 3)

    (found,) = findings.at_least("error")
    assert (found.rule, found.path) == ("nonfinite-gradient", "1")
    assert "nonfinite-parameter" in {each.rule for each in found.consequences}


def test_later_data_that_is_bad_by_itself_stays() -> None:
    model = nn.Sequential(Gives(torch.log), nn.Linear(4, 4))
    with hookline.check(model) as findings:
        model(-torch.ones(8, 4))
        model(torch.full((8, 4), NAN))

    assert [each.rule for each in findings.at_least("error")] == ["nonfinite-output", "nonfinite-input"]


@pytest.mark.parametrize("hand_over", [lambda x: x, Tensor.detach, lambda x: x.view(4, 8), lambda x: x + 0])
def test_later_input_that_another_module_spoiled_is_a_consequence(hand_over: Any) -> None:
    pair = nn.ModuleDict({"maker": nn.Sequential(nn.Linear(4, 4), Gives(lambda x: x.abs().neg().log()))})
    pair["critic"] = Gives(lambda x: x.sum())
    with hookline.check(pair) as findings:
        made = pair["maker"](torch.randn(8, 4))
        pair["critic"](hand_over(made))

    (found,) = findings.at_least("error")
    assert (found.rule, found.path) == ("nonfinite-output", "maker.1")
    assert [each.rule for each in found.consequences] == ["nonfinite-input"]


def test_two_modules_that_made_it_in_one_forward_both_stand() -> None:
    model = Held(lambda self, x: self.a(x) + self.b(x), a=Gives(torch.log), b=Gives(torch.sqrt))

    assert told(hookline.check(model, -torch.ones(8, 4)), "nonfinite-output") == [("a", "error"), ("b", "error")]


def test_consequences_are_in_the_document() -> None:
    findings = train(layers(), [torch.full((8, 4), NAN)] * 2)

    (document,) = [each for each in findings.to_dict()["findings"] if each["severity"] == "error"]
    assert len(document["consequences"]) == 24
    assert document["consequences"][0]["rule"] == "nonfinite-parameter"


def test_table_says_how_many_follow() -> None:
    assert "24 that follow from it" in " ".join(repr(train(layers(), [torch.full((8, 4), NAN)] * 2)).split())


# Where


def spoiled(place: Any, shape: tuple[int, ...] = (4, 6, 8), **arguments: Tensor) -> str:
    def spoil(x: Tensor, **_: Any) -> Tensor:
        x = x.clone()
        x[place] = NAN
        return x

    (found,) = hookline.check(Gives(spoil), torch.ones(shape), **arguments).of("nonfinite-output")
    return found.message


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ((2,), "at [2, :, :]"),
        ((2, 5, 7), "at [2, 5, 7]"),
        ((slice(None), slice(1, 3)), "at [:, 1:3, :]"),
        (([0, 3],), "at [0 3, :, :]"),
        (([0, 1], [0, 1]), "within [0:2, 0:2, :]"),
    ],
)
def test_where_the_elements_lie_is_said(place: Any, where: str) -> None:
    assert spoiled(place).endswith(f" NaN among 192 elements, {where}")


def test_many_separate_rows_are_counted() -> None:
    assert spoiled((slice(None, None, 2),), (32, 4)).endswith("at [16 of 32, :]")


def test_nothing_is_said_where_all_of_it_is_bad() -> None:
    assert spoiled((slice(None),)).endswith("produces 192 NaN among 192 elements")


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_positions_that_a_mask_hides_are_recognized(dtype: torch.dtype) -> None:
    mask = torch.ones(4, 6, dtype=dtype)
    mask[1, 4:] = 0
    mask[3, 2:] = 0
    said = spoiled(mask == 0, attention_mask=mask)

    assert f"; all where attention_mask is {'False' if dtype == torch.bool else 0}" in said


def test_mask_that_explains_a_part_is_not_named() -> None:
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[1, 4:] = False

    assert "attention_mask" not in spoiled((slice(1, 2), slice(3, None)), attention_mask=mask)


def test_mask_of_a_module_around_is_recognized_inside() -> None:
    def attend(self: Any, x: Tensor, padding: Tensor) -> Tensor:
        return self.inner(x, padding)

    def spoil(x: Tensor, hidden: Tensor) -> Tensor:
        return x.masked_fill(hidden[..., None], NAN)

    padding = torch.zeros(4, 6, dtype=torch.bool)
    padding[:, 4:] = True
    model = Held(attend, inner=Gives(spoil))

    (found,) = hookline.check(model, torch.ones(4, 6, 8), padding=padding).of("nonfinite-output")
    assert found.message.endswith("at [:, 4:6, :]; all where padding is True")


def test_rows_of_a_damaged_weight_are_said() -> None:
    model = nn.Linear(4, 8)
    with torch.no_grad():
        model.weight[5] = NAN

    (found,) = hookline.check(model, torch.ones(2, 4)).of("nonfinite-parameter")
    assert found.message == "its parameter weight held 4 NaN before the first call, at [5, :]"


def test_rows_of_a_bad_batch_are_said() -> None:
    x = torch.ones(8, 4)
    x[[2, 6]] = NAN

    assert hookline.check(nn.Linear(4, 4), x)[0].message.endswith("8 NaN among 32 elements, at [2 6, :]")
