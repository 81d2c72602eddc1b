"""What does an edit cost? One edit of an output, compared with a hook by hand that does the same."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import hookline
from benchmarks.ratios import Row, compare, once_set_up
from benchmarks.watching import forward, minilm
from hookline import edits

X = torch.ones(8)
VECTOR = torch.ones(8)


def rows() -> list[Row]:
    """A call with one edit; then adding an edit to a real model, running it and removing the edit."""
    found = []
    for name, edit, by_hand in (
        ("zero", edits.zero(), torch.zeros_like),
        ("add a vector", edits.add(VECTOR), partial(torch.add, VECTOR)),
        ("a function", torch.neg, torch.neg),
    ):
        ours, theirs = nn.Identity(), nn.Identity()
        hookline.edit(ours, "", output=edit)
        theirs.register_forward_hook(lambda module, args, output, by_hand=by_hand: by_hand(output))
        found.append(
            compare(
                f"a call of an identity module with one edit: {name}",
                once_set_up("module(x)", module=ours, x=X),
                "a forward hook that does the same",
                once_set_up("module(x)", module=theirs, x=X),
                goal="≥1",
                number=3000,
            )
        )
    model = minilm()
    inputs = {"input_ids": torch.arange(8).reshape(1, 8)}
    found.append(
        compare(
            "`with edit(one layer)` around a forward of MiniLM, 1x8",
            once_set_up("f()", f=partial(edited, model, inputs)),
            "a hook added and removed",
            once_set_up("f()", f=partial(hooked, model, inputs)),
            goal="≥1",
            number=5,
        )
    )
    return found


def edited(model: nn.Module, inputs: dict[str, Any]) -> None:
    """A forward with one layer's output scaled, by an edit."""
    with hookline.edit(model, "encoder.layer.3.output", output=edits.scale(2.0)):
        forward(model, inputs)


def hooked(model: nn.Module, inputs: dict[str, Any]) -> None:
    """The same by hand."""

    def double(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output * 2.0

    handle = model.get_submodule("encoder.layer.3.output").register_forward_hook(double)
    try:
        forward(model, inputs)
    finally:
        handle.remove()
