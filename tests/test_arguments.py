"""Wrong arguments: one error that is a ValueError, and a TypeError too where it is the type that is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import hookline
from hookline import ArgumentError, edits
from hookline.testing import toy

X = torch.ones(2, 4)
TOOLS: dict[str, Callable[..., Any]] = {
    "check": hookline.check,
    "profile": hookline.profile,
    "diff": lambda model, *args, **kwargs: hookline.diff(model, model, *args, **kwargs),
}
WRONG: dict[str, Callable[[nn.Module], Any]] = {
    "watch(keep=)": lambda model: hookline.watch(model, keep="stat"),
    "watch(grads=)": lambda model: hookline.watch(model, grads="inputs"),
    "watch(where)": lambda model: hookline.watch(model, "nowhere"),
    "select()": lambda model: hookline.select(model, "[b-a]"),
    "edit()": lambda model: hookline.edit(model, "0"),
    "edits.clamp()": lambda model: edits.clamp(),
    "profile(repeat=)": lambda model: hookline.profile(model, X, repeat=0),
    "guard(then=)": lambda model: hookline.guard(model, then="stop"),
    "diff(mapping=)": lambda model: hookline.diff(model, model, X, mapping={"nowhere": "0"}),
    "sweep(part=)": lambda model: hookline.sweep(model, "0", edits.zero(), lambda *_: 0.0, [X], part="grad"),
    "rule(severity=)": lambda model: hookline.rule("loud", severity="loud"),
}
OF_WRONG_TYPE: dict[str, Callable[[nn.Module], Any]] = {
    "select(model)": lambda model: hookline.select("model"),
    "watch(where)": lambda model: hookline.watch(model, 3),
    "edit(output=)": lambda model: hookline.edit(model, "0", output=2.0),
    "edit(when=)": lambda model: hookline.edit(model, "0", output=edits.zero(), when="first"),
    "diff(mapping=)": lambda model: hookline.diff(model, model, X, mapping="0"),
    "diff(tolerances=)": lambda model: hookline.diff(model, model, X, tolerances=0.1),
}


@pytest.mark.parametrize("wrong", [*WRONG, *OF_WRONG_TYPE])
def test_wrong_argument_is_a_value_error(wrong: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        {**WRONG, **OF_WRONG_TYPE}[wrong](toy())

    assert isinstance(caught.value, hookline.HooklineError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("wrong", OF_WRONG_TYPE)
def test_argument_of_a_wrong_type_is_a_type_error(wrong: str) -> None:
    with pytest.raises(TypeError):
        OF_WRONG_TYPE[wrong](toy())


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("path", ["0", "*", "**"])
def test_path_as_the_only_input_is_told_to_be_where(tool: str, path: str) -> None:
    with pytest.raises(ArgumentError, match=rf"write where='{path}'".replace("*", r"\*")):
        TOOLS[tool](toy(), path)


class Spells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(1, 1)
        self.texts: set[str] = set()

    def forward(self, text: str, x: torch.Tensor | None = None) -> torch.Tensor:
        self.texts.add(text)
        return self.inner(torch.ones(1, 1) * len(text))


@pytest.mark.parametrize("tool", TOOLS)
def test_text_that_is_no_path_is_an_input(tool: str) -> None:
    model = Spells()
    TOOLS[tool](model, "some text")

    assert model.texts == {"some text"}


@pytest.mark.parametrize("tool", TOOLS)
def test_path_with_other_inputs_is_an_input(tool: str) -> None:
    model = Spells()
    TOOLS[tool](model, "inner", X)

    assert model.texts == {"inner"}
