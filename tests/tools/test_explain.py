"""Tests of `hookline.explain` and of the note on an error: real mistakes, each told by path, shapes and what was wanted."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import hookline
from hookline.testing import assert_unhooked, recorded


class Named(nn.Module):
    """One layer with a name."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, given: Any) -> Any:
        return self.layer(*given) if isinstance(given, tuple) else self.layer(given)


def note_of(layer: nn.Module, given: Any) -> list[str]:
    """The lines of the note that an error in `model.layer(given)` carries."""
    model = Named(layer)
    with hookline.explain(model), pytest.raises(Exception) as caught:
        model(given)
    (note,) = caught.value.__notes__
    return note.splitlines()


MISTAKES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], str]] = {
    "a wrong width into a Linear": (
        lambda: nn.Linear(8, 2),
        lambda: torch.ones(2, 4),
        "Linear(in_features=8) expects [..., 8], got [2, 4].",
    ),
    "axes swapped before a Linear": (
        lambda: nn.Linear(8, 2),
        lambda: torch.ones(2, 8, 5),
        "Linear(in_features=8) expects [..., 8], got [2, 8, 5]. Axis 1 is 8 long: is it in the wrong place?",
    ),
    "channels last into a Conv2d": (
        lambda: nn.Conv2d(3, 4, 3),
        lambda: torch.ones(2, 8, 8, 3),
        "Conv2d(in_channels=3) expects [batch, 3, height, width], got [2, 8, 8, 3]. Axis 3 (the last) is 3 long: is it in the wrong place?",
    ),
    "an image without channels into a Conv2d": (
        lambda: nn.Conv2d(3, 4, 3),
        lambda: torch.ones(8, 8),
        "Conv2d(in_channels=3) expects [batch, 3, height, width], got [8, 8].",
    ),
    "too few channels into a Conv1d": (
        lambda: nn.Conv1d(4, 4, 3),
        lambda: torch.ones(2, 1, 9),
        "Conv1d(in_channels=4) expects [batch, 4, length], got [2, 1, 9].",
    ),
    "a missing batch axis before a BatchNorm2d": (
        lambda: nn.BatchNorm2d(3),
        lambda: torch.ones(3, 8, 8),
        "BatchNorm2d(num_features=3) expects [batch, 3, height, width], got [3, 8, 8]. "
        "Is the batch axis missing, or the channels?",
    ),
    "channels last into a BatchNorm2d": (
        lambda: nn.BatchNorm2d(3),
        lambda: torch.ones(2, 8, 8, 3),
        "BatchNorm2d(num_features=3) expects [batch, 3, height, width], got [2, 8, 8, 3]. Axis 3 (the last) is 3 long",
    ),
    "a wrong width into a LayerNorm": (
        lambda: nn.LayerNorm(8),
        lambda: torch.ones(2, 5),
        "LayerNorm(normalized_shape=[8]) expects [..., 8], got [2, 5].",
    ),
    "channels that do not fit a GroupNorm": (
        lambda: nn.GroupNorm(2, 4),
        lambda: torch.ones(2, 6, 3),
        "GroupNorm(num_channels=4) expects [batch, 4, ...], got [2, 6, 3].",
    ),
    "floats into an Embedding": (
        lambda: nn.Embedding(10, 4),
        lambda: torch.ones(2, 3),
        "Embedding(num_embeddings=10) expects indices, int64 or int32, got float32.",
    ),
    "a token beyond the vocabulary": (
        lambda: nn.Embedding(10, 4),
        lambda: torch.tensor([3, 10]),
        "Embedding(num_embeddings=10) expects indices 0 to 9, got 3 to 10.",
    ),
    "a wrong width into an LSTM": (
        lambda: nn.LSTM(8, 4),
        lambda: torch.ones(2, 3, 5),
        "LSTM(input_size=8) expects [..., 8], got [2, 3, 5].",
    ),
    "a wrong width into attention": (
        lambda: nn.MultiheadAttention(8, 2),
        lambda: (torch.ones(2, 3, 4),) * 3,
        "MultiheadAttention(embed_dim=8) expects [..., 8], got [2, 3, 4].",
    ),
    "integers into a Linear": (
        lambda: nn.Linear(4, 2),
        lambda: torch.ones(2, 4, dtype=torch.int64),
        "Its weight is float32 and its input int64.",
    ),
    "half precision into a float32 Conv2d": (
        lambda: nn.Conv2d(3, 4, 3),
        lambda: torch.ones(1, 3, 8, 8, dtype=torch.float16),
        "Its weight is float32 and its input float16.",
    ),
    "a model left on another device": (
        lambda: nn.Linear(4, 2, device="meta"),
        lambda: torch.ones(2, 4),
        "Its weight is on meta and its input on cpu.",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_by_path_shapes_and_what_was_wanted(mistake: str) -> None:
    build, give, wanted = MISTAKES[mistake]
    layer, given = build(), give()
    first, hint, own, around = note_of(layer, given)

    assert first.startswith(f"hookline: in layer ({type(layer).__name__}, call 0), called with (")
    assert all(str([*tensor.shape]) in first for tensor in (given if isinstance(given, tuple) else (given,)))
    assert wanted in hint
    name, parameter = next(iter(layer.named_parameters()))
    assert own.startswith(f"  it has {name} {str(parameter.dtype).removeprefix('torch.')}{[*parameter.shape]}")
    assert around.startswith("  inside the model (Named, call 0), called with (")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_called_a_mistake_is_one(mistake: str) -> None:
    build, give, _ = MISTAKES[mistake]
    given = give()
    with pytest.raises((RuntimeError, ValueError, IndexError, AssertionError)):
        build()(*given) if isinstance(given, tuple) else build()(given)


def test_a_layer_that_is_given_what_it_takes_has_no_hint() -> None:
    model = nn.Linear(4, 2)
    model.register_forward_hook(lambda *_: 1 / 0)
    with hookline.explain(model), pytest.raises(ZeroDivisionError) as caught:
        model(torch.ones(3, 4))

    assert caught.value.__notes__ == [
        "hookline: in the model (Linear, call 0), called with (float32[3, 4] cpu)\n"
        "  it has weight float32[2, 4] cpu, bias float32[2] cpu"
    ]


def test_subclass_of_a_layer_gets_no_hint() -> None:
    class Flattening(nn.Linear):
        pass

    assert not any("takes" in line for line in note_of(Flattening(8, 2), torch.ones(2, 4)))


def test_under_autocast_another_dtype_is_no_mistake() -> None:
    model = nn.Linear(4, 2)
    with torch.autocast("cpu"), hookline.explain(model), pytest.raises(RuntimeError) as caught:
        model(torch.ones(2, 5, dtype=torch.bfloat16))

    assert "its input bfloat16" not in caught.value.__notes__[0]


def test_buffers_are_told_and_children_are_not() -> None:
    own = next(line for line in note_of(nn.BatchNorm1d(3), torch.ones(2, 4)) if "it has" in line)

    assert "running_mean float32[3] cpu" in own
    model = nn.Sequential(nn.Linear(4, 2))
    model.register_forward_hook(lambda *_: 1 / 0)
    with hookline.explain(model, ""), pytest.raises(ZeroDivisionError) as caught:
        model(torch.ones(3, 4))
    assert "it has" not in caught.value.__notes__[0]


def test_many_parameters_are_counted_not_told() -> None:
    model = nn.ParameterDict({f"p{number}": torch.ones(1) for number in range(20)})
    with hookline.explain(model), pytest.raises(RuntimeError) as caught:
        model(1)

    assert caught.value.__notes__[0].count("float32[1] cpu") == 8
    assert caught.value.__notes__[0].endswith(" and 12 more")


def test_the_calls_above_are_told_innermost_first() -> None:
    model = nn.Sequential(nn.Identity(), nn.Sequential(nn.Flatten(), nn.Linear(9, 2)))
    with hookline.explain(model), pytest.raises(RuntimeError) as caught:
        model(torch.ones(2, 2, 2))

    assert caught.value.__notes__[0].splitlines()[-2:] == [
        "  inside 1 (Sequential, call 0), called with (float32[2, 2, 2] cpu)",
        "  inside the model (Sequential, call 0), called with (float32[2, 2, 2] cpu)",
    ]


def test_deep_recursion_shows_innermost_and_outermost_calls() -> None:
    class Again(nn.Module):
        def forward(self, depth: int) -> Any:
            return self(depth - 1) if depth else 1 / 0

    model = Again()
    with hookline.explain(model), pytest.raises(ZeroDivisionError) as caught:
        model(50)

    lines = caught.value.__notes__[0].splitlines()
    assert lines[0] == "hookline: in the model (Again, call 50), called with (0)"
    assert lines[1] == "  inside the model (Again, call 49), called with (1)"
    assert lines[-2:] == ["  ... and 39 more", "  inside the model (Again, call 0), called with (50)"]
    assert len(lines) == 13


def test_long_arguments_are_cut() -> None:
    model = nn.Identity()
    model.register_forward_hook(lambda *_: 1 / 0)
    with hookline.explain(model), pytest.raises(ZeroDivisionError) as caught:
        model([torch.ones(1)] * 1000)

    assert caught.value.__notes__[0].endswith("...)")
    assert len(caught.value.__notes__[0]) < 2200


def test_a_watched_forward_carries_the_note_too() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(6, 2))
    with pytest.raises(RuntimeError) as caught:
        recorded(model, torch.ones(3, 4))

    assert "Linear(in_features=6) expects [..., 6], got [3, 8]." in caught.value.__notes__[0]


def test_error_of_a_hook_names_the_hook_and_not_the_module() -> None:
    def fail(call: hookline.Call) -> None:
        raise ValueError("a step's")

    model = nn.Linear(4, 2)
    with hookline.explain(model), hookline.on(model, "", after=fail), pytest.raises(ValueError) as caught:
        model(torch.ones(3, 4))

    (note,) = caught.value.__notes__
    assert "raised by the after hook" in note
    assert "it has" not in note


def test_outside_of_the_selection_there_is_no_note() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(6, 2))
    with hookline.explain(model, "0"), pytest.raises(RuntimeError) as caught:
        model(torch.ones(3, 4))

    assert not hasattr(caught.value, "__notes__")


def test_the_note_keeps_no_tensor_alive() -> None:
    model = nn.Linear(8, 2)
    x = torch.ones(3, 4)
    gone = weakref.ref(x)
    gc.disable()
    try:
        with hookline.explain(model):
            try:
                model(x)
            except RuntimeError as error:
                kept = error.with_traceback(None)  # which holds the frames, and these the tensors
        del x
        assert gone() is None
        assert kept.__notes__
    finally:
        gc.enable()


def test_a_handle_takes_it_off_again() -> None:
    model = nn.Linear(8, 2)
    handle = hookline.explain(model)
    handle.remove()

    assert_unhooked(model, torch_hooks=True)


def test_explaining_changes_no_bit() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.Linear(8, 2))
    torch.manual_seed(0)
    plain = model(torch.ones(3, 4))
    torch.manual_seed(0)
    with hookline.explain(model):
        assert torch.equal(model(torch.ones(3, 4)), plain)
