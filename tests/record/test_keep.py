"""Tests of what each `keep` keeps of a tensor, and of what reading it gives."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hookline
from hookline import ArgumentError, ChangedTensorError, RecordError, TensorInfo
from hookline.record import keep as keeping
from hookline.record.keep import describe, keeper
from hookline.record.statistics import Pending


def kept(tensor: Tensor, keep: Any) -> TensorInfo:
    return keeper(keep, Pending())(tensor)


KEEPS = ["shape", "stats", "tensor", "copy", lambda tensor: None]


@pytest.mark.parametrize("keep", KEEPS, ids=["shape", "stats", "tensor", "copy", "function"])
def test_every_keep_describes_the_tensor(keep: Any) -> None:
    info = kept(torch.zeros(2, 3, dtype=torch.float16, requires_grad=True), keep)

    assert (info.shape, info.dtype, info.dtype_name) == ((2, 3), torch.float16, "float16")
    assert (info.device, info.requires_grad) == (torch.device("cpu"), True)


@pytest.mark.parametrize("keep", KEEPS, ids=["shape", "stats", "tensor", "copy", "function"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(3).to_sparse(),
        lambda: torch.empty(3, device="meta"),
        lambda: torch.nested.nested_tensor([torch.zeros(3)], layout=torch.jagged),
        lambda: torch.nested.nested_tensor([torch.zeros(3)]),
        lambda: torch.quantize_per_tensor(torch.zeros(3), 0.5, 0, torch.qint8),
        lambda: torch.zeros(3, dtype=torch.complex64),
        lambda: torch.empty(0),
    ],
    ids=["sparse", "meta", "jagged", "nested", "quantized", "complex", "empty"],
)
def test_every_keep_takes_every_kind_of_tensor(keep: Any, make: Callable[[], Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(prototype stage|deprecated)")
        tensor = make()

    assert kept(tensor, keep).dtype is tensor.dtype


def test_shape_keeps_no_statistics_and_no_value() -> None:
    info = kept(torch.zeros(2), "shape")

    assert (info.stats, info.value) == (None, None)


def test_a_figure_that_was_not_kept_says_how_to_keep_it() -> None:
    with pytest.raises(
        RecordError, match=r"no statistics were kept of this float32\[2\] tensor; watch with keep='stats'"
    ):
        _ = kept(torch.zeros(2), "shape").mean


def test_stats_keeps_figures_and_no_value() -> None:
    info = kept(torch.tensor([0.0, -4.0]), "stats")

    assert (info.count, info.min, info.max, info.mean, info.std) == (2, -4.0, 0.0, -2.0, 2.0)
    assert (info.absmax, info.norm, info.zeros, info.nan, info.inf) == (4.0, 4.0, 0.5, 0, 0)
    assert info.value is None


def test_a_ragged_dimension_of_a_nested_tensor_is_minus_one() -> None:
    parts = [torch.zeros(2, 5), torch.zeros(3, 5)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*prototype stage")
        strided = torch.nested.nested_tensor(parts)

    assert describe(strided).shape == (2, -1, 5)
    assert describe(torch.nested.nested_tensor(parts, layout=torch.jagged)).shape == (2, -1, 5)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The tensors that were measured."""
    seen: list[Tensor] = []
    measure = keeping.measure
    monkeypatch.setattr(
        keeping, "measure", lambda tensor, pending, bins: seen.append(tensor) or measure(tensor, pending)
    )
    return seen


def test_a_tensor_that_comes_again_unchanged_is_measured_once(measured: list[Tensor]) -> None:
    keep, tensor = keeper("stats", Pending()), torch.ones(2)

    assert keep(tensor).mean == keep(tensor).mean == 1.0
    assert len(measured) == 1


def test_a_tensor_that_comes_again_changed_in_place_is_measured_again() -> None:
    keep, tensor = keeper("stats", Pending()), torch.ones(2)

    before = keep(tensor)
    tensor += 1

    assert (before.mean, keep(tensor).mean) == (1.0, 2.0)


def test_an_inference_tensor_that_comes_again_is_measured_again() -> None:
    keep = keeper("stats", Pending())
    with torch.inference_mode():
        tensor = torch.ones(2)
        before = keep(tensor)
        tensor += 1

        assert (before.mean, keep(tensor).mean) == (1.0, 2.0)


def test_another_tensor_in_the_place_of_one_that_is_gone_is_measured() -> None:
    keep = keeper("stats", Pending())

    assert [keep(torch.full((2,), float(number))).mean for number in range(5)] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_tensor_keeps_the_tensor_itself() -> None:
    tensor = torch.zeros(2)

    assert kept(tensor, "tensor").value is tensor


@pytest.mark.parametrize(
    "change",
    [lambda tensor: tensor.add_(1), lambda tensor: tensor[0].fill_(1), lambda tensor: tensor.detach().zero_()],
    ids=["itself", "view", "detached"],
)
def test_a_kept_tensor_that_was_changed_in_place_is_not_read(change: Callable[[Tensor], Any]) -> None:
    tensor = torch.zeros(2)
    info = kept(tensor, "tensor")

    change(tensor)

    with pytest.raises(ChangedTensorError, match=r"this float32\[2\] tensor was changed in place .*keep='copy'"):
        _ = info.value


def test_a_kept_tensor_that_was_changed_before_is_read() -> None:
    tensor = torch.zeros(2).add_(1)

    assert kept(tensor, "tensor").value.tolist() == [1.0, 1.0]


def test_an_inference_tensor_is_kept() -> None:
    with torch.inference_mode():
        tensor = torch.zeros(2)

    assert kept(tensor, "tensor").value is tensor


def test_copy_keeps_what_the_tensor_was() -> None:
    tensor = torch.zeros(2)
    info = kept(tensor, "copy")

    tensor += 1

    assert info.value.tolist() == [0.0, 0.0]


def test_a_copy_has_no_part_in_the_graph() -> None:
    tensor = torch.zeros(2, requires_grad=True) * 2

    assert not kept(tensor, "copy").value.requires_grad


def test_a_copy_lies_in_memory_as_the_tensor_does() -> None:
    tensor = torch.zeros(2, 3).t()

    assert kept(tensor, "copy").value.stride() == tensor.stride()


def test_a_function_is_given_the_tensor_and_what_it_gives_is_kept() -> None:
    tensor = torch.tensor([1.0, 5.0])

    assert kept(tensor, lambda given: (given is tensor, given.max().item())).value == (True, 5.0)


def test_a_function_may_give_none() -> None:
    assert kept(torch.zeros(2), lambda tensor: None).value is None


@pytest.mark.parametrize("keep", ["everything", None, 3])
def test_unknown_keep_raises_with_the_choices(keep: Any) -> None:
    with pytest.raises(
        ArgumentError, match="keep must be 'shape', 'stats', 'histogram', 'tensor', 'copy' or a function of the tensor"
    ):
        hookline.watch(nn.ReLU(), keep=keep)


def test_unknown_inputs_raises_with_the_choices() -> None:
    inputs: Any = "everything"
    with pytest.raises(ArgumentError, match="inputs must be 'shape', 'stats', .*, not 'everything'"):
        hookline.watch(nn.ReLU(), inputs=inputs)


def of_the_call(tensor: Tensor, call: hookline.Call) -> tuple[str, int, float]:
    return call.path, call.index, tensor.sum().item()


def test_function_of_two_gets_the_call() -> None:
    model = nn.Sequential(nn.ReLU())
    with hookline.watch(model, keep=of_the_call, inputs=of_the_call) as run:
        for value in (1.0, 2.0):
            model(torch.tensor([value]))

    assert [call.output.value for call in run.calls if call.path == "0"] == [("0", 0, 1.0), ("0", 1, 2.0)]
    assert [call.inputs[0].value for call in run.calls if call.path == "0"] == [("0", 0, 1.0), ("0", 1, 2.0)]


def test_function_of_two_gets_the_call_of_a_nested_tensor() -> None:
    lstm = nn.LSTM(2, 2)
    with hookline.watch(lstm, keep=of_the_call) as run:
        lstm(torch.zeros(1, 2))

    assert run[""].output[1][0].value[:2] == ("", 0)


def test_function_of_two_gets_the_call_of_a_gradient() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with hookline.watch(model, keep=of_the_call, grads="input") as run:
        for _ in range(2):
            model(torch.ones(1, 2, requires_grad=True)).sum().backward()

    assert [call.output.grad.value[:2] for call in run.calls if call.path == "1"] == [("1", 0), ("1", 1)]
    assert [call.args[0].grad.value[:2] for call in run.calls if call.path == "0"] == [("0", 0), ("0", 1)]


@pytest.mark.graph
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which dynamo reads
def test_function_of_two_gets_the_call_in_a_graph() -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    compiled = torch.compile(model, backend="aot_eager")
    with hookline.watch(model, keep=of_the_call, grads=True) as run:
        compiled(torch.ones(1, 2)).sum().backward()

    assert run["1"].output.value[:2] == ("1", 0)
    assert run["1"].output.grad.value == ("1", 0, 2.0)


@pytest.mark.parametrize("keep", [lambda: None, lambda tensor, call, more: None])
def test_function_of_no_argument_or_three_is_an_error(keep: Any) -> None:
    with pytest.raises(hookline.ArgumentTypeError, match="a function of the tensor, or of the tensor and its call"):
        hookline.watch(nn.ReLU(), keep=keep)


def test_second_argument_with_a_default_is_not_the_call() -> None:
    assert kept(torch.ones(2), lambda tensor, scale=3.0: tensor.sum().item() * scale).value == 6.0


def test_builtin_is_a_function_of_the_tensor() -> None:
    assert kept(torch.ones(2), torch.sum).value.item() == 2.0


def test_diff_refuses_a_function_of_the_call() -> None:
    model = nn.ReLU()
    with pytest.raises(hookline.ArgumentTypeError, match="a function of the tensor alone"):
        hookline.diff(model, model, torch.ones(1), keep=of_the_call)


def test_inputs_are_kept_as_inputs_says() -> None:
    model = nn.ReLU()
    with hookline.watch(model, keep="shape", inputs="copy") as run:
        model(torch.tensor([-1.0]))

    assert run[""].inputs[0].value.tolist() == [-1.0]
    assert run[""].output.value is None


def test_gradients_are_kept_as_keep_says() -> None:
    model = nn.Linear(2, 1)
    with hookline.watch(model, keep="copy", grads=True) as run:
        (model(torch.ones(1, 2)) * 3).sum().backward()

    assert run[""].output.grad.value.tolist() == [[3.0]]


def test_a_run_knows_how_it_was_kept() -> None:
    def largest(tensor: Tensor) -> float:
        return tensor.max().item()

    with hookline.watch(nn.ReLU(), keep=largest, inputs="copy", grads=True) as run:
        pass

    assert run.settings["keep"].endswith("largest")
    assert (run.settings["inputs"], run.settings["grads"]) == ("copy", True)


def test_error_in_a_keep_function_ends_the_call_and_leaves_no_hook() -> None:
    def broken(tensor: Tensor) -> None:
        raise ZeroDivisionError("of the function")

    model = nn.ReLU()
    before = dict(vars(model))

    with pytest.raises(ZeroDivisionError, match="of the function"), hookline.watch(model, keep=broken):
        model(torch.ones(1))

    assert vars(model) == before
    assert type(model) is nn.ReLU
