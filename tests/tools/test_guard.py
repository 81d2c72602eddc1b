"""Tests of `hookline.guard`: what it finds, where it says it was made, when it says so, and that nothing else changes."""

import contextlib
import copy
import gc
import logging
import math
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from toys import Gives

import hookline
from hookline import NonFiniteError
from hookline.guarding import guard as guarding
from hookline.record import finite
from hookline.testing import assert_unhooked, toy

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def deferred(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The CPU as a device whose figures have to be fetched; how many figures each fetch brought."""
    fetches: list[int] = []
    fetch = finite.fetch

    def counted(device: torch.device, rows: list[Tensor]) -> list[Any]:
        fetches.append(len(rows))
        return fetch(device, rows)

    monkeypatch.setattr(finite, "AT_ONCE", set())
    monkeypatch.setattr(finite, "fetch", counted)
    return fetches


@pytest.fixture
def without_gc() -> Iterator[None]:
    """A test in which only reference counts free anything."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def gives(make: Any) -> nn.Module:
    return Gives(make)


def chain(*makes: Any) -> nn.Sequential:
    """A linear layer, then modules that are functions, then another linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), *(gives(make) for make in makes), nn.Linear(4, 2))


def found_in(model: nn.Module, *args: Any, backward: bool = False, **options: Any) -> NonFiniteError:
    with hookline.guard(model, **options), pytest.raises(NonFiniteError) as caught:
        output = model(*(args or (torch.ones(3, 4),)))
        if backward:
            output.sum().backward()
    return caught.value


def with_value(value: float) -> Any:
    """A function that puts a value into one element."""
    return lambda x: torch.where(torch.arange(x.numel()).reshape(x.shape) == 1, torch.tensor(value, dtype=x.dtype), x)


# The forward


@pytest.mark.parametrize(("value", "name"), [(NAN, "NaN"), (INF, "Inf"), (-INF, "-Inf")])
def test_the_error_names_the_module_that_made_it_and_what_it_made(value: float, name: str) -> None:
    error = found_in(chain(torch.relu, with_value(value), torch.tanh))

    assert (error.path, error.index, error.phase, error.step) == ("2", 0, "forward", 0)
    assert str(error).startswith(f"{name} in the output of 2 (Gives, call 0), in the forward of step 0: ")
    assert "among 12 elements of float32[3, 4] cpu" in str(error)
    assert "so it originated here" in str(error)


def test_the_error_counts_the_elements() -> None:
    error = found_in(chain(lambda x: torch.cat([x[:1] * NAN, x[1:] + INF])))

    assert "4 NaN and 8 Inf among 12 elements" in str(error)


def test_the_error_says_where_in_the_tensor_the_elements_lie() -> None:
    error = found_in(chain(lambda x: torch.cat([x[:1], x[1:2] * NAN, x[2:]])))

    assert "4 NaN and 0 Inf among 12 elements of float32[3, 4] cpu, at [1, :]." in str(error)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.float8_e5m2])
def test_every_dtype_that_has_nan_is_looked_at(dtype: torch.dtype) -> None:
    model = gives(lambda x: x.to(dtype))

    assert found_in(model, torch.tensor([1.0, NAN, 2.0])).path == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_values_with_infinite_sum_raise_no_error(dtype: torch.dtype) -> None:
    largest = torch.full((100,), torch.finfo(dtype).max, dtype=dtype)
    model = gives(lambda x: torch.cat([x, x, -x]))
    with hookline.guard(model, grads=False):
        given = model(largest)

    assert given.isfinite().all()
    assert not given.sum(dtype=dtype).isfinite()


def test_nan_in_any_part_of_a_nested_output_is_found() -> None:
    model = gives(lambda x: {"fine": x, "more": (1, [x, x * NAN])})

    assert found_in(model, torch.ones(2)).path == ""


def test_an_error_is_raised_in_the_very_module() -> None:
    reached = []
    model = chain(with_value(NAN), lambda x: reached.append(1) or x)

    found_in(model)

    assert not reached


def test_finite_step_raises_nothing() -> None:
    model = toy()
    with hookline.guard(model):
        model(torch.ones(3, 4)).sum().backward()


def test_the_same_step_from_an_infinite_loss_raises() -> None:
    model = toy()
    with hookline.guard(model), pytest.raises(NonFiniteError):
        (model(torch.ones(3, 4)).sum() * INF).backward()


def test_the_call_of_a_module_that_is_called_twice_is_told() -> None:
    calls: list[int] = []

    def second_is_bad(x: Tensor) -> Tensor:
        calls.append(1)
        return x * NAN if len(calls) == 2 else x + 1

    shared = gives(second_is_bad)
    error = found_in(nn.Sequential(shared, nn.Linear(4, 4), shared))

    assert (error.path, error.index) == ("0", 1)


def test_what_was_there_in_the_input_already_is_said_to_be() -> None:
    error = found_in(toy(), torch.tensor([[1.0, NAN, 2.0, 3.0]]))

    assert error.path == "0"
    assert "Its inputs had NaN already, which no watched module returned." in str(error)


def test_minus_infinity_passes_if_an_argument_had_it() -> None:
    masks = gives(lambda x, mask: x + mask)
    with hookline.guard(masks):
        assert masks(torch.zeros(2, requires_grad=True), torch.tensor([0.0, -INF])).tolist() == [0.0, -INF]


def test_a_row_that_a_mask_hides_whole_gives_nan_which_is_found() -> None:
    attention = gives(lambda x, mask: torch.softmax(x + mask, 0))

    error = found_in(attention, torch.zeros(2), torch.full((2,), -INF))

    assert "Its inputs had -Inf already" in str(error)


def test_masks_of_integers_and_of_the_smallest_number_are_no_alarm() -> None:
    model = gives(lambda x, mask, ids: (x + mask, ids, ids > 0))
    with hookline.guard(model):
        model(torch.zeros(2), torch.tensor([0.0, torch.finfo(torch.float32).min]), torch.arange(2))


def test_mask_that_makes_the_smallest_number_overflow_is_found() -> None:
    model = gives(lambda x, mask, ids: (x + mask * 2, ids, ids > 0))
    smallest = torch.tensor([0.0, torch.finfo(torch.float32).min])

    assert found_in(model, torch.zeros(2), smallest, torch.arange(2)).path == ""


def test_parameters_that_are_not_finite_already_are_named() -> None:
    model = toy()
    with torch.no_grad():
        model[2][0].weight[0, 0] = NAN

    error = found_in(model)

    assert error.path == "2.0"
    assert "Its own weight already had NaN or Inf." in str(error)


def in_two_calls() -> nn.ModuleDict:
    """Two parts that a loop calls itself; the first makes NaN."""
    return nn.ModuleDict({"first": chain(with_value(NAN)), "second": nn.Linear(2, 2)})


@pytest.mark.parametrize("device", ["at once", "deferred"])
def test_what_an_earlier_call_of_the_loop_spoiled_is_told_of_once(device: str, request: pytest.FixtureRequest) -> None:
    if device == "deferred":
        request.getfixturevalue("deferred")
    model, told = in_two_calls(), []
    with hookline.guard(model, then=told.append):
        for _ in range(2):
            model["second"](model["first"](torch.ones(3, 4))).sum().backward()

    assert [(error.path, error.step) for error in told] == [("first.1", 0), ("first.1", 2)]


def test_what_the_loop_itself_spoils_between_two_calls_is_told_of() -> None:
    model, told = nn.ModuleDict({"first": nn.Linear(4, 2), "second": nn.Linear(2, 2)}), []
    with hookline.guard(model, then=told.append):
        model["second"](model["first"](torch.ones(3, 4)) * NAN)

    assert [(error.path, error.step) for error in told] == [("second", 1)]
    assert "Its inputs had NaN already, which no watched module returned." in str(told[0])


def test_bad_gradient_in_a_loop_names_its_call() -> None:
    model = nn.ModuleDict({"first": chain(torch.relu), "second": gives(lambda x: (x * 0).sqrt())})
    with hookline.guard(model), pytest.raises(NonFiniteError) as caught:
        model["second"](model["first"](torch.ones(3, 4))).sum().backward()

    assert (caught.value.path, caught.value.phase) == ("second", "backward")


class Block(nn.Module):
    """Two layers, with code of the block's own between them."""

    def __init__(self, between: Any) -> None:
        super().__init__()
        self.first, self.last, self.between = nn.Linear(4, 4), nn.Linear(4, 4), between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


@pytest.mark.parametrize("device", ["at once", "deferred"])
def test_container_that_spoils_a_childs_input_is_named(device: str, request: pytest.FixtureRequest) -> None:
    if device == "deferred":
        request.getfixturevalue("deferred")
    error = found_in(nn.Sequential(Block(lambda x: (x * 0 - 1).log())), backward=True)

    assert (error.path, error.index, error.phase) == ("0", 0, "forward")
    assert str(error).startswith("NaN in the output of 0.last (Linear, call 0)")
    assert "It originated in the code of 0 (Block, call 0)" in str(error)


@pytest.mark.parametrize("device", ["at once", "deferred"])
def test_a_container_that_hands_on_a_part_of_its_input_is_not_named(
    device: str, request: pytest.FixtureRequest
) -> None:
    if device == "deferred":
        request.getfixturevalue("deferred")

    class Half(Block):
        def forward(self, x: Tensor) -> Tensor:
            return self.first(x[:, :4])

    error = found_in(nn.Sequential(Half(None)), torch.full((3, 8), NAN), backward=True)

    assert error.path == "0.first"
    assert "which no watched module returned." in str(error)


def test_containers_mask_is_not_blamed_for_a_childs_nan() -> None:
    class Masks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.softmax = nn.Softmax(dim=-1)

        def forward(self, x: Tensor) -> Tensor:
            return self.softmax(x - INF)

    assert found_in(Masks()).path == "softmax"


def test_an_operation_in_place_on_what_another_module_gave_is_seen() -> None:
    error = found_in(chain(lambda x: x.mul_(NAN)))

    assert error.path == "1"
    assert "so it originated here" in str(error)


def test_what_a_container_gives_on_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    look = finite.bounds_of
    monkeypatch.setattr(finite, "bounds_of", lambda tensor: looked.append(tensor.shape) or look(tensor))
    model = nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(4, 4))))
    with hookline.guard(model), torch.no_grad():
        model(torch.ones(3, 4))

    assert len(looked) == 1


# The backward


def test_bad_gradient_names_the_module_whose_backward_made_it() -> None:
    error = found_in(chain(torch.relu, torch.sqrt), backward=True)

    assert (error.path, error.index, error.phase) == ("2", 0, "backward")
    assert str(error).startswith("Inf in the gradient of the output of 1 (Gives, call 0), in the backward of step 0: ")
    assert "That output went to 2 (Gives, call 0). It originated in the backward of that" in str(error)


def test_gradient_spoiled_by_loss_names_maker_of_its_input() -> None:
    model = toy()
    with hookline.guard(model), pytest.raises(NonFiniteError) as caught:
        (model(torch.ones(3, 4)).sum() * 0).sqrt().backward()

    assert (caught.value.path, caught.value.phase) == ("3", "backward")
    assert "No single watched module is known to receive that output" in str(caught.value)


def test_consumer_is_not_named_if_the_tensor_left_the_model() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.body(x)
            return self.head(hidden), hidden

    model = Hidden()
    nn.init.zeros_(model.body.weight)
    nn.init.zeros_(model.body.bias)
    with hookline.guard(model), pytest.raises(NonFiniteError) as caught:
        output, hidden = model(torch.ones(3, 4))
        (output.sum() + hidden.square().sum(1).sqrt().mean()).backward()

    assert (caught.value.path, caught.value.phase) == ("body", "backward")
    assert "That output went to head (Linear, call 0) and was returned by the model (Hidden, call 0)" in str(
        caught.value
    )


def test_backward_after_a_failed_one_is_guarded() -> None:
    def refuse(_: Tensor) -> None:
        raise KeyError("mine")

    model = nn.Linear(4, 1)
    with hookline.guard(model), pytest.raises(NonFiniteError) as caught:
        loss = model(torch.ones(3, 4)).sum()
        refusing = model.weight.register_hook(refuse)
        with contextlib.suppress(KeyError):
            loss.backward(retain_graph=True)
        refusing.remove()
        model.weight.register_hook(lambda gradient: gradient * NAN)
        loss.backward()

    assert "NaN in the gradient of the parameter weight" in str(caught.value)


def test_parameter_gradients_are_read_after_the_pass() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.scale.sqrt()

    error = found_in(nn.Sequential(nn.Linear(4, 4), Scale()), backward=True)

    assert (error.path, error.index, error.phase) == ("1", None, "backward")
    assert "Inf in the gradient of the parameter 1.scale" in str(error)


def test_a_guard_of_the_forward_alone_lets_gradients_overflow() -> None:
    model = chain(lambda x: x * 0, torch.sqrt)
    with hookline.guard(model, grads=False):
        model(torch.ones(3, 4)).sum().backward()

    assert not model[0].weight.grad.isfinite().all()


def test_the_error_of_a_backward_speaks_of_loss_scalers() -> None:
    assert "guard(model, grads=False)" in str(found_in(chain(torch.relu, torch.sqrt), backward=True))


# What is told


def test_the_message_tells_of_the_last_calls_with_their_bounds() -> None:
    error = found_in(chain(lambda x: x * 0 + 2, with_value(NAN)))

    assert "The last values before it:\n  0 (Linear, call 0) returned float32[3, 4], from " in str(error)
    assert "  1 (Gives, call 0) returned float32[3, 4], from 2 to 2\n" in str(error)


def test_the_run_holds_the_last_calls_and_those_around_them() -> None:
    run = found_in(chain(lambda x: x * 0 + 2, with_value(NAN))).run

    assert [call.path for call in run] == ["", "0", "1", "2"]
    assert {call.parent for call in run.calls[1:]} == {run[""]}
    assert (run["1"].output.min, run["1"].output.max) == (2, 2)
    assert run["2"].output.nan == 1


def test_figures_of_tensors_that_are_gone_are_nan() -> None:
    run = found_in(chain(lambda x: x * 0 + 2, with_value(NAN))).run

    assert math.isnan(run["0"].output.mean)
    assert run["0"].output.nan == 0


def test_figures_of_tensors_that_are_alive_are_measured() -> None:
    kept = []
    run = found_in(chain(lambda x: kept.append(x * 0 + 2) or kept[0], with_value(NAN))).run

    assert run["1"].output.mean == 2


def test_the_run_has_the_gradients_that_were_seen() -> None:
    run = found_in(chain(torch.relu, torch.sqrt), backward=True).run

    assert run["2"].output.grad.shape == (3, 4)
    assert run["1"].output.grad.inf > 0


def test_last_says_how_many_tensors_are_told_of() -> None:
    run = found_in(chain(*[torch.relu] * 8, with_value(NAN)), last=2).run

    assert [call.path for call in run] == ["", "7", "8", "9"]


def test_the_run_is_saved_and_the_message_says_where(tmp_path: Path) -> None:
    error = found_in(chain(with_value(NAN)), save=tmp_path / "bad")

    assert str(error).endswith(f"Its run is saved: hookline.load({str(tmp_path / 'bad')!r}).")
    assert hookline.load(tmp_path / "bad")["1"].output.nan == 1


def test_a_run_that_cannot_be_saved_leaves_the_error(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("not a run")

    assert "could not be saved" in str(found_in(chain(with_value(NAN)), save=tmp_path))


def test_logging_tells_once_a_step_and_lets_training_go_on(caplog: pytest.LogCaptureFixture) -> None:
    model = chain(with_value(NAN), torch.relu)
    with hookline.guard(model, then="log"), caplog.at_level(logging.ERROR, "hookline"):
        for _ in range(2):
            model(torch.ones(3, 4)).sum().backward()

    assert [record.getMessage().splitlines()[0].split(":")[0] for record in caplog.records] == [
        "NaN in the output of 1 (Gives, call 0), in the forward of step 0",
        "NaN in the output of 1 (Gives, call 1), in the forward of step 1",
    ]


def test_a_function_is_called_with_the_error_and_the_step_goes_on() -> None:
    told: list[NonFiniteError] = []
    model = chain(with_value(NAN))
    with hookline.guard(model, then=told.append):
        model(torch.ones(3, 4)).sum().backward()

    assert [error.path for error in told] == ["1"]


@pytest.mark.parametrize("then", ["rase", None, 3])
def test_an_unknown_then_is_one_clear_error(then: Any) -> None:
    model = toy()
    with pytest.raises(hookline.ArgumentError, match=r"then must be 'raise', 'log' or a function of the error"):
        hookline.guard(model, then=then)
    assert_unhooked(model)


def test_a_negative_last_is_an_error() -> None:
    with pytest.raises(hookline.ArgumentError, match=r"last must be 0 or more"):
        hookline.guard(toy(), last=-1)


# A device


def test_on_a_device_a_step_waits_once_at_the_end_of_its_backward(deferred: list[int]) -> None:
    model = toy()
    with hookline.guard(model):
        for step in range(3):
            assert len(deferred) == step
            loss = model(torch.ones(3, 4)).sum()
            assert len(deferred) == step
            loss.backward()

    assert len(deferred) == 3


def test_on_a_device_backward_raises_and_names_the_module(deferred: list[int]) -> None:
    model = chain(torch.relu, with_value(NAN), torch.tanh)
    with hookline.guard(model):
        loss = model(torch.ones(3, 4)).sum()
        with pytest.raises(NonFiniteError) as caught:
            loss.backward()

    assert (caught.value.path, caught.value.phase) == ("2", "forward")
    assert "so it originated here" in str(caught.value)
    assert "no longer exists, so its NaN and Inf are not counted" in str(caught.value)


def test_on_a_device_a_gradient_is_found(deferred: list[int]) -> None:
    error = found_in(chain(torch.relu, torch.sqrt), backward=True)

    assert (error.path, error.phase) == ("2", "backward")


def test_on_a_device_a_mask_passes_through(deferred: list[int]) -> None:
    masks = gives(lambda x, mask: x + mask)
    with hookline.guard(masks), torch.no_grad():
        masks(torch.zeros(2), torch.tensor([0.0, -INF]))


def test_on_a_device_what_is_made_behind_a_mask_is_found(deferred: list[int]) -> None:
    masks = gives(lambda x, mask: torch.softmax(x + mask, 0))
    with pytest.raises(NonFiniteError), hookline.guard(masks), torch.no_grad():
        masks(torch.zeros(2), torch.full((2,), -INF))


def test_on_a_device_what_was_there_already_is_said_to_be(deferred: list[int]) -> None:
    error = found_in(toy(), torch.full((1, 4), NAN), backward=True)

    assert error.path == "0"
    assert "Its inputs had NaN already" in str(error)


def test_on_a_device_a_forward_without_graph_is_judged_at_the_next(deferred: list[int]) -> None:
    model = chain(with_value(NAN))
    with torch.no_grad(), hookline.guard(model):
        model(torch.ones(3, 4))
        with pytest.raises(NonFiniteError) as caught:
            model(torch.ones(3, 4))

    assert caught.value.step == 0


def test_on_a_device_what_waits_is_judged_when_the_guard_is_removed(deferred: list[int]) -> None:
    model = chain(with_value(NAN))
    handle = hookline.guard(model)
    model(torch.ones(3, 4))
    with pytest.raises(NonFiniteError):
        handle.remove()
    assert_unhooked(model)


def test_on_a_device_another_error_on_its_way_is_not_hidden(
    deferred: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    model = chain(with_value(NAN))
    with pytest.raises(KeyError), hookline.guard(model):
        model(torch.ones(3, 4))
        raise KeyError("mine")

    assert "NaN in the output of 1" in caplog.text


def test_on_a_device_two_forwards_before_one_backward_wait_once(deferred: list[int]) -> None:
    model = toy()
    with hookline.guard(model):
        (model(torch.ones(3, 4)) + model(torch.zeros(3, 4))).sum().backward()

    assert len(deferred) == 1


def test_on_a_device_forward_guard_raises_after_backward(deferred: list[int]) -> None:
    model = chain(with_value(NAN))
    with hookline.guard(model, grads=False):
        loss = model(torch.ones(3, 4)).sum()
        with pytest.raises(NonFiniteError):
            loss.backward()

    assert len(deferred) == 1


@pytest.mark.parametrize("reentrant", [False, True])
def test_on_a_device_a_checkpointed_step_waits_once(deferred: list[int], reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(toy() for _ in range(3))
            self.back = nn.Linear(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = self.back(checkpoint(block, x, use_reentrant=reentrant))
            return x

    model = Checkpointed()
    with hookline.guard(model):
        for _ in range(2):
            model(torch.ones(3, 4, requires_grad=True)).sum().backward()

    assert len(deferred) == 2


def test_on_a_device_selecting_some_layers_still_waits_once_a_step(deferred: list[int]) -> None:
    model = toy()
    with hookline.guard(model, nn.Linear):
        for _ in range(2):
            model(torch.ones(3, 4)).sum().backward()
    with hookline.guard(model, nn.Linear), torch.no_grad():
        model(torch.ones(3, 4))
        assert len(deferred) == 2

    assert len(deferred) == 3


def test_on_a_device_graphs_that_get_no_backward_are_read_in_the_end(
    deferred: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline.guarding.guard.MOST_WAITING", 20)
    model = toy()
    with hookline.guard(model):
        for _ in range(20):
            model(torch.ones(3, 4))
        assert 1 < len(deferred) < 10


# Bounds


@pytest.mark.parametrize(("between", "times"), [(guarding.MOST_RECENT - 1, 1), (guarding.MOST_RECENT, 2)])
def test_output_is_recognized_among_the_last_64_outermost_calls(between: int, times: int) -> None:
    model = nn.ModuleDict({"bad": Spoil(), "other": nn.Identity(), "last": nn.Linear(2, 2)})
    told: list[NonFiniteError] = []
    with torch.no_grad(), hookline.guard(model, then=told.append):
        bad = model["bad"](torch.ones(2))
        kept = [model["other"](torch.ones(2)) for _ in range(between)]
        model["last"](bad)

    assert guarding.MOST_RECENT == 64
    assert len(kept) == between
    assert len(told) == times


def test_on_a_device_4096_figures_wait_for_a_backward_and_no_more(deferred: list[int]) -> None:
    model = nn.Embedding(1, 1)
    x = torch.zeros(1, dtype=torch.long)
    with hookline.guard(model):
        for _ in range(4097):  # an output each; they are counted before the next call
            model(x)
        assert deferred == []
        model(x)
        assert deferred == [2 * 4097]


def test_error_has_five_lines_and_its_run_sixteen_tensors() -> None:
    error = found_in(chain(*[torch.relu] * 20, with_value(NAN)))

    assert sum(" returned float32" in line for line in str(error).splitlines()) == 5
    assert len([call for call in error.run if call.path]) == 16 + 1
    assert error.run.calls[1].path == "5"


def test_last_of_nothing_holds_the_bad_tensor_alone() -> None:
    assert [call.path for call in found_in(chain(with_value(NAN)), last=0).run] == ["", "1"]


# Recomputed


@pytest.mark.parametrize("reentrant", [False, True])
def test_outermost_call_that_a_backward_repeats_is_no_step_of_its_own(reentrant: bool) -> None:
    model = chain(torch.relu)
    told: list[NonFiniteError] = []
    with hookline.guard(model, then=told.append):
        for number in range(3):
            x = torch.full((3, 4), NAN if number == 2 else 1.0, requires_grad=True)
            checkpoint(model, x, use_reentrant=reentrant).sum().backward()

    assert [(error.path, error.phase, error.step) for error in told] == [("0", "forward", 2)]


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_of_a_repeated_outermost_call_belongs_to_its_step(reentrant: bool) -> None:
    model = chain(torch.relu, lambda x: (x * 0).sqrt())
    told: list[NonFiniteError] = []
    with hookline.guard(model, then=told.append):
        for _ in range(2):
            checkpoint(model, torch.ones(3, 4, requires_grad=True), use_reentrant=reentrant).sum().backward()

    assert [(error.path, error.phase, error.step) for error in told] == [("2", "backward", 0), ("2", "backward", 1)]


@pytest.mark.parametrize("reentrant", [False, True])
def test_on_a_device_a_repeated_outermost_call_waits_once(deferred: list[int], reentrant: bool) -> None:
    model = chain(torch.relu)
    with hookline.guard(model):
        for _ in range(2):
            checkpoint(model, torch.ones(3, 4, requires_grad=True), use_reentrant=reentrant).sum().backward()

    assert len(deferred) == 2


# Around it


def test_after_removal_nothing_is_on_the_model_and_nothing_is_found() -> None:
    model = chain(with_value(NAN))
    handle = hookline.guard(model)
    handle.remove()
    handle.remove()

    assert_unhooked(model, torch_hooks=True)
    model(torch.ones(3, 4)).sum().backward()


def test_guard_removed_before_backward_reads_no_gradient() -> None:
    model = chain(torch.relu, torch.sqrt)
    with hookline.guard(model):
        loss = model(torch.ones(3, 4)).sum()
    loss.backward()


def test_a_guard_that_is_left_after_the_backward_finds_the_gradient() -> None:
    model = chain(torch.relu, torch.sqrt)
    with hookline.guard(model), pytest.raises(NonFiniteError):
        model(torch.ones(3, 4)).sum().backward()


def test_a_guard_can_be_removed_by_a_module_that_runs() -> None:
    handles: list[hookline.Handle] = []
    model = chain(lambda x: handles[0].remove() or x * NAN)
    handles.append(hookline.guard(model))

    model(torch.ones(3, 4))

    assert_unhooked(model)


def test_outputs_gradients_and_the_random_state_are_the_same_elements() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 8), nn.Dropout(), nn.ReLU(inplace=True), nn.Linear(8, 2)).train()
    watched = copy.deepcopy(plain)

    def step(model: nn.Module) -> tuple[Tensor, Tensor]:
        torch.manual_seed(1)
        output = model(torch.ones(3, 4))
        output.square().sum().backward()
        return output, torch.get_rng_state()

    with hookline.guard(watched):
        guarded = step(watched)

    assert all(torch.equal(one, other) for one, other in zip(step(plain), guarded, strict=True))
    for one, other in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_model_error_passes_and_the_next_step_is_guarded() -> None:
    model = chain(lambda x: x / x.shape[0] if x.shape[0] < 9 else 1 / 0, with_value(NAN))
    with hookline.guard(model):
        with pytest.raises(ZeroDivisionError):
            model(torch.ones(9, 4))
        with pytest.raises(NonFiniteError) as caught:
            model(torch.ones(3, 4))

    assert caught.value.step == 1


def test_evaluation_during_training_is_guarded() -> None:
    model = toy()
    with hookline.guard(model):
        model(torch.ones(3, 4)).sum().backward()
        with torch.no_grad(), pytest.raises(NonFiniteError) as caught:
            model(torch.full((3, 4), INF))
        model(torch.ones(3, 4)).sum().backward()

    assert caught.value.step == 1


def test_inference_mode_is_guarded_too() -> None:
    with torch.inference_mode():
        assert found_in(chain(with_value(NAN))).path == "1"


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_module_is_guarded_in_forward_and_backward(reentrant: bool) -> None:
    inner = chain(torch.relu, torch.sqrt)
    model = Gives(lambda x: checkpoint(inner, x, use_reentrant=reentrant))
    model.inner = inner
    x = torch.ones(3, 4, requires_grad=True)

    error = found_in(model, x, backward=True)

    assert (error.path, error.phase) == ("inner.2", "backward")


def test_each_thread_has_steps_of_its_own() -> None:
    model = toy()
    errors: list[NonFiniteError] = []

    def train(value: float) -> None:
        for _ in range(20):
            try:
                model(torch.full((3, 4), value)).sum().backward()
            except NonFiniteError as error:
                errors.append(error)

    with hookline.guard(model, grads=False):
        threads = [threading.Thread(target=train, args=(value,)) for value in (1.0, NAN, 2.0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(errors) == 20


class Spoil(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * NAN


@pytest.mark.graph
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which dynamo reads
@pytest.mark.parametrize("compiled", ["the model", "a part", "a wrapper"])
def test_what_a_compiled_module_gives_is_looked_at_and_nothing_inside(compiled: str) -> None:
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), Spoil()), nn.Linear(4, 2))
    if compiled == "a wrapper":
        model = torch.compile(model, backend="eager")
    else:
        (model if compiled == "the model" else model[1]).compile(backend="eager")

    assert found_in(model).path == ("1" if compiled == "a part" else "")
    assert_unhooked(model)


def test_two_guards_do_not_meet() -> None:
    told: list[NonFiniteError] = []
    model = chain(with_value(NAN))
    with hookline.guard(model, then=told.append), hookline.guard(model, then=told.append):
        model(torch.ones(3, 4))

    assert [error.path for error in told] == ["1", "1"]


def test_gradients_of_gradients_are_left_alone() -> None:
    model = toy()
    x = torch.ones(3, 4, requires_grad=True)
    with hookline.guard(model):
        (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        gradient.square().sum().backward()


def test_gradient_of_a_gradient_that_is_not_finite_is_found() -> None:
    model = toy()
    x = torch.ones(3, 4, requires_grad=True)
    with hookline.guard(model):
        (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        with pytest.raises(NonFiniteError):
            (gradient.square().sum() * INF).backward()


def test_transforms_of_functions_are_left_alone() -> None:
    model = toy()
    parameters = dict(model.named_parameters())
    loss = lambda parameters, x: torch.func.functional_call(model, parameters, (x,)).sum()
    with hookline.guard(model):
        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, torch.ones(5, 1, 4))

    assert {gradient.shape[0] for gradient in gradients.values()} == {5}


def test_transforms_of_functions_are_left_alone_on_a_device(deferred: list[int]) -> None:
    test_transforms_of_functions_are_left_alone()


# Memory


def test_no_tensor_is_kept_alive(without_gc: None) -> None:
    kept: list[weakref.ref[Tensor]] = []
    model = chain(lambda x: kept.append(weakref.ref(x)) or x + 1)
    with hookline.guard(model):
        model(torch.ones(3, 4))
        assert kept[0]() is None


def test_a_guarded_model_that_is_dropped_is_freed_at_once(without_gc: None) -> None:
    model = toy()
    gone = weakref.ref(model)
    handle = hookline.guard(model)
    model(torch.ones(3, 4)).sum().backward()
    del model

    assert gone() is None
    handle.remove()


@pytest.mark.parametrize("device", ["at once", "deferred"])
def test_a_thousand_steps_leave_no_more_objects_than_ten(
    without_gc: None, device: str, request: pytest.FixtureRequest
) -> None:
    if device == "deferred":
        request.getfixturevalue("deferred")
    model = toy()

    def objects_after(steps: int) -> int:
        for _ in range(steps):
            model(torch.ones(3, 4)).sum().backward()
        return len(gc.get_objects())

    with hookline.guard(model):
        before = objects_after(10)
        assert objects_after(1000) - before < 50


def test_an_error_that_was_handled_keeps_no_tensor(without_gc: None) -> None:
    kept: list[weakref.ref[Tensor]] = []
    model = chain(lambda x: kept.append(weakref.ref(x)) or x * NAN)
    with hookline.guard(model):
        with contextlib.suppress(NonFiniteError):
            model(torch.ones(3, 4))
        assert kept[0]() is None
