"""Which calls belong together: by path and index, by a mapping, by a proposal."""

import copy

import pytest
import torch
from torch import nn

import hookline
from hookline.matching.match import match, translate
from hookline.testing import recorded, toy

X = torch.linspace(-1, 1, 12).reshape(3, 4)


class Renamed(nn.Module):
    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.enter, self.inner, self.leave = model[0], nn.ModuleDict({"a": model[2]}), model[3]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.leave(self.inner["a"](self.enter(x).relu()))


@pytest.mark.parametrize(
    ("mapping", "path", "partner"),
    [
        ({"encoder": "body"}, "encoder.layer.0", "body.layer.0"),
        ({"bert.encoder.layer.*": "layers.*"}, "bert.encoder.layer.11.output", "layers.11.output"),
        ({"*.layers.*.mlp": "*.h.*.ff"}, "model.layers.3.mlp.up", "model.h.3.ff.up"),
        ({"**.norm": "**.ln"}, "a.b.norm", "a.b.ln"),
        ({"": "model"}, "head.weight", "model.head.weight"),
        ({"model": ""}, "model.head", "head"),
        ({"a": "x", "a.b": "y"}, "a.b.c", "y.c"),
    ],
)
def test_a_mapping_carries_stars_and_what_lies_below(mapping: dict[str, str], path: str, partner: str) -> None:
    assert translate([path], mapping) == {path: partner}


def test_calls_are_matched_by_path_and_index() -> None:
    class Twice(nn.Module):
        def __init__(self, times: int) -> None:
            super().__init__()
            self.layer, self.times = nn.Linear(4, 4), times

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(self.times):
                x = self.layer(x)
            return x

    found = match(recorded(Twice(2), X), recorded(Twice(3), X))

    assert [(one.path, one.index, other.index) for one, other in found.pairs] == [
        ("", 0, 0),
        ("layer", 0, 0),
        ("layer", 1, 1),
    ]
    assert [(call.path, call.index) for call in found.only_b] == [("layer", 2)]
    assert found.only_a == ()


@pytest.mark.parametrize("keep", ["stats", "copy", "shape"])
def test_partners_are_proposed_by_order_class_and_shape(keep: str) -> None:
    model = toy()
    found = match(recorded(model, X, keep=keep), recorded(Renamed(copy.deepcopy(model)), X, keep=keep))

    assert dict(found.paths) == {
        **{"": "", "0": "enter", "2.0": "inner.a.0", "2.1": "inner.a.1"},
        **{"2": "inner.a", "3": "leave"},
    }
    assert [call.path for call in found.only_a] == ["1"]
    assert set(found.proposed) == {"0", "2", "2.0", "2.1", "3"}


def test_values_tell_apart_what_order_does_not() -> None:
    class Branches(nn.Module):
        def __init__(self, *names: str) -> None:
            super().__init__()
            self.names = names
            for name in names:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed("abc".index(name[-1]))
                    setattr(self, name, nn.Linear(4, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return sum(getattr(self, name)(x) for name in self.names)

    found = match(recorded(Branches("a", "b", "c"), X), recorded(Branches("other_c", "other_a", "other_b"), X))

    assert {one: other for one, other in found.paths.items() if one} == {"a": "other_a", "b": "other_b", "c": "other_c"}


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"nowhere": "2"}, "'nowhere' matches no module of the first"),
        ({"2": "nowhere"}, "leads to 'nowhere', which the second does not have"),
        ({"0": "3", "2.0": "3"}, "'0' and '2.0' both lead to '3'"),
        ({"2": "*"}, "more stars"),
    ],
)
def test_a_mapping_that_leads_nowhere_is_told(mapping: dict[str, str], says: str) -> None:
    with pytest.raises(hookline.ArgumentError, match=says.replace("*", r"\*")):
        hookline.diff(toy(), toy(), X, mapping=mapping)


def test_a_star_stands_for_a_name_and_not_for_the_model_itself() -> None:
    assert translate(["", "a", "a.b"], {"*": "layers.*"}) == {"a": "layers.a", "a.b": "layers.a.b"}
