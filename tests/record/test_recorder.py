"""Tests of recording through `watch`: what calls leave behind, however they go, and that nothing else stays."""

import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from toys import Gives
from transformers.modeling_outputs import BaseModelOutput

import hookline
from hookline import CallRecord, Run
from hookline.model.tensors import Fields, Opaque


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)), nn.Tanh())


def tree(run: Run, call: CallRecord | None = None) -> Any:
    return [(child.path, tree(run, child)) if run.children(child) else child.path for child in run.children(call)]


def output_of(model: nn.Module, x: Any = None) -> Any:
    with hookline.watch(model) as run:
        model(torch.ones(2, 3) if x is None else x)
    return run[""].output


# Trees


def test_calls_are_recorded_as_a_tree() -> None:
    model = network()
    with hookline.watch(model) as run:
        model(torch.ones(1, 4))

    assert tree(run) == [("", ["0", ("1", ["1.0", "1.1"]), "2"])]


def test_each_call_of_the_model_is_a_tree_of_its_own() -> None:
    model = nn.Sequential(nn.ReLU())
    with hookline.watch(model) as run:
        model(torch.ones(1))
        model(torch.ones(1))

    assert tree(run) == [("", ["0"]), ("", ["0"])]


def test_a_shared_module_is_recorded_under_its_first_path() -> None:
    shared = nn.ReLU()
    model = nn.Sequential(shared, nn.Linear(4, 4), shared)
    with hookline.watch(model) as run:
        model(torch.ones(1, 4))

    assert [(call.path, call.index) for call in run] == [("", 0), ("0", 0), ("1", 0), ("0", 1)]


def test_a_module_that_calls_itself_is_recorded_inside_itself() -> None:
    class Countdown(nn.Module):
        def forward(self, x: Tensor, times: int) -> Tensor:
            return self(x + 1, times - 1) if times else x

    model = Countdown()
    with hookline.watch(model) as run:
        model(torch.zeros(1), 2)

    assert [(call.index, call.depth, call.args[1], call.output.mean) for call in run] == [
        (0, 0, 2, 2.0),
        (1, 1, 1, 2.0),
        (2, 2, 0, 2.0),
    ]


def test_recursion_as_deep_as_python_allows_is_recorded() -> None:
    class Countdown(nn.Module):
        def forward(self, x: Tensor, times: int) -> Tensor:
            return self(x, times - 1) if times else x

    model, limit = Countdown(), sys.getrecursionlimit()
    sys.setrecursionlimit(3000)
    try:
        with hookline.watch(model) as run:
            model(torch.zeros(1), 300)
    finally:
        sys.setrecursionlimit(limit)

    assert run["", -1].depth == 300


def test_the_calls_of_two_threads_are_nested_each_in_its_own() -> None:
    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            both.wait()
            return x

    both = threading.Barrier(2)
    model = nn.Sequential(Slow(), nn.Sequential(Slow(), nn.ReLU()))
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            model(torch.full((1,), float(number)))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    with hookline.watch(model, inputs="stats") as run:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert failed == []
    assert tree(run) == [("", ["0", ("1", ["1.0", "1.1"])])] * 2
    assert all(call.parent is None or call.parent.thread == call.thread for call in run)
    assert all(call.parent is None or call.parent.args[0].mean == call.args[0].mean for call in run)
    assert len({call.thread for call in run}) == 2


def test_a_call_that_runs_on_in_a_thread_after_the_block_goes_its_way() -> None:
    started, ended = threading.Event(), threading.Event()

    def wait(x: Tensor) -> Tensor:
        started.set()
        ended.wait()
        return x

    model = nn.Sequential(Gives(wait), nn.ReLU())
    results: list[Tensor] = []
    thread = threading.Thread(target=lambda: results.append(model(torch.ones(1))))
    with hookline.watch(model) as run:
        thread.start()
        started.wait()
    ended.set()
    thread.join()

    assert [result.item() for result in results] == [1.0]
    assert [call.path for call in run] == ["", "0"]
    assert (run["0"].output, run["0"].error) == (None, None)


def test_a_generator_that_a_forward_gives_is_opaque_and_works() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Iterator[Tensor]:
            for row in x:
                yield self.act(row)

    model = Tokens()
    with hookline.watch(model) as run:
        rows = list(model(torch.ones(3, 1)))

    assert len(rows) == 3
    assert run[""].output == Opaque("generator")
    assert tree(run) == ["", "act", "act", "act"]


def test_nested_blocks_on_one_model_record_each_their_own() -> None:
    model = network()
    with hookline.watch(model) as outer:
        model(torch.ones(1, 4))
        with hookline.watch(model, "1.*", keep="shape") as inner:
            model(torch.ones(1, 4))
        model(torch.ones(1, 4))

    assert len(outer.calls_of("1.0")) == 3
    assert [(call.path, call.index, call.parent) for call in inner] == [("1.0", 0, None), ("1.1", 0, None)]
    assert inner["1.0"].output.stats is None
    assert outer["1.0", 1].output.stats is not None


def places(run: Run) -> list[tuple[str, int]]:
    return [(call.path, call.index) for call in run]


def test_module_hooked_before_has_path_and_count_of_the_run() -> None:
    model = network()
    with hookline.on(model[1], "1", before=lambda call: None):
        model(torch.ones(1, 4))
        with hookline.watch(model, "1.*") as run:
            model(torch.ones(1, 4))
            model(torch.ones(1, 4))

    assert places(run) == [("1.0", 0), ("1.1", 0), ("1.0", 1), ("1.1", 1)]


def test_a_call_that_an_earlier_step_ends_does_not_count() -> None:
    def refuse(call: hookline.Call) -> None:
        if call.index == 1:
            raise ValueError("not this time")

    model = network()
    with hookline.watch(model, "*") as run:
        model(torch.ones(1, 4))
        with hookline.on(model, "2", before=refuse):
            with pytest.raises(ValueError, match="not this time"):
                model(torch.ones(1, 4))
            model(torch.ones(1, 4))

    assert [call.index for call in run.find("2")] == [0, 1]
    assert [call.index for call in run.find("0")] == [0, 1, 2]


def test_a_block_while_others_steps_stay_counts_from_its_own_beginning() -> None:
    model = network()
    with hookline.watch(model):
        stays = hookline.on(model, "**", before=lambda call: None)
        model(torch.ones(1, 4))
    with stays, hookline.watch(model[1]) as run:
        model(torch.ones(1, 4))

    assert places(run) == [("", 0), ("0", 0), ("1", 0)]


def test_a_step_that_is_taken_off_is_not_kept_by_those_that_stay() -> None:
    def step(call: hookline.Call) -> None:
        pass

    model = network()
    handle = hookline.on(model, before=step, where="**")
    with hookline.on(model, "**", before=lambda call: None):
        handle.remove()
        gone = weakref.ref(step)
        del step, handle
        gc.collect()

        assert gone() is None


def test_a_block_inside_of_a_call_records_what_is_called_from_then_on() -> None:
    runs: list[Run] = []

    class Curious(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            with hookline.watch(self) as run:
                runs.append(run)
                return self.act(x)

    Curious()(torch.ones(1))

    assert tree(runs[0]) == ["act"]


def test_after_the_block_nothing_is_recorded() -> None:
    model = nn.ReLU()
    with hookline.watch(model) as run:
        pass
    model(torch.ones(1))

    assert len(run) == 0


# Values


def test_no_output_is_none() -> None:
    assert output_of(Gives(lambda x: None)) is None


def test_a_dict_stays_a_dict() -> None:
    output = output_of(Gives(lambda x: {"a": x, 1: None}))

    assert (output["a"].shape, output[1]) == ((2, 3), None)


def test_a_tuple_with_none_stays_a_tuple_with_none() -> None:
    output = output_of(Gives(lambda x: (x, None)))

    assert (type(output), output[0].shape, output[1]) == (tuple, (2, 3), None)


def test_a_dataclass_reads_by_its_names() -> None:
    @dataclass
    class Answer:
        logits: Tensor
        count: int

    output = output_of(Gives(lambda x: Answer(x, 3)))

    assert isinstance(output, Fields)
    assert (output.type, output.logits.shape, output.count) == ("Answer", (2, 3), 3)


def test_a_model_output_reads_by_its_names() -> None:
    output = output_of(Gives(lambda x: BaseModelOutput(last_hidden_state=x)))

    assert (output.type, output.last_hidden_state.shape, output[0].shape) == ("BaseModelOutput", (2, 3), (2, 3))


def test_a_packed_sequence_reads_by_its_names() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    with hookline.watch(lstm := nn.LSTM(2, 5)) as run:
        result, _ = lstm(packed)

    assert isinstance(result, PackedSequence)
    assert (run[""].args[0].type, run[""].output[0].data.shape) == ("PackedSequence", (4, 5))


def test_what_torch_max_gives_reads_by_its_names() -> None:
    assert output_of(Gives(lambda x: torch.max(x, 1))).values.shape == (2,)


def test_an_argument_that_is_no_tensor_is_opaque() -> None:
    with hookline.watch(model := Gives(lambda x: None)) as run:
        model(object())

    assert run[""].args == (Opaque("object"),)


def test_a_sparse_output_is_recorded() -> None:
    assert output_of(Gives(lambda x: x.to_sparse())).count == 6


# Gradients


def test_a_gradient_is_that_of_the_output() -> None:
    model = network()
    x = torch.ones(1, 4)
    with hookline.watch(model, keep="copy", grads=True) as run:
        (model(x) * torch.arange(4.0)).sum().backward()

    assert run[""].grad_output.value.tolist() == [[0.0, 1.0, 2.0, 3.0]]
    assert torch.allclose(
        run["0"].grad_output.value, torch.autograd.grad((model(x) * torch.arange(4.0)).sum(), model[0].bias)[0]
    )


def test_each_call_of_a_module_has_its_own_gradient() -> None:
    shared = nn.Linear(1, 1, bias=False)
    nn.init.constant_(shared.weight, 3.0)
    model = nn.Sequential(shared, shared)
    with hookline.watch(model, grads=True) as run:
        model(torch.ones(1, 1)).sum().backward()

    assert [call.grad_output.mean for call in run.calls_of("0")] == [3.0, 1.0]


def test_gradients_of_arguments_are_recorded_where_they_are_asked_for() -> None:
    model = Gives(lambda x, *, scale: x * scale)
    x, scale = torch.ones(2, requires_grad=True), torch.full((2,), 3.0, requires_grad=True)
    with hookline.watch(model, keep="copy", grads="input") as run:
        (model(x, scale=scale) + x).sum().backward()

    call = run[""]
    assert torch.equal(call.grad_input[0].value, torch.full((2,), 3.0))
    assert torch.equal(call.args[0].grad.value, call.grad_input[0].value)
    assert torch.equal(call.grad_kwargs["scale"].value, torch.ones(2))
    assert torch.equal(call.grad_output.value, torch.ones(2))


def test_each_call_of_a_module_has_the_gradient_of_its_own_argument() -> None:
    model = nn.Linear(2, 2)
    x = torch.ones(1, 2, requires_grad=True)
    with hookline.watch(model, keep="tensor", grads="input") as run:
        model(model(x)).sum().backward()

    assert torch.equal(run["", 0].grad_input[0].value, x.grad)
    assert torch.equal(run["", 1].grad_input[0].value, run["", 0].grad_output.value)


def test_gradients_of_arguments_are_saved_and_shown(tmp_path: Path) -> None:
    with hookline.watch(model := nn.Linear(2, 2), grads="input") as run:
        model(torch.ones(1, 2, requires_grad=True)).sum().backward()
    run.save(tmp_path / "run")

    loaded = hookline.load(tmp_path / "run")
    assert loaded[""].args[0].grad.norm == run[""].args[0].grad.norm > 0
    assert loaded.settings["grads"] == "input"
    assert repr(run).splitlines()[1].endswith("grad norm  of input")
    assert run.to_pandas()["grad_input_norm"][0] == run[""].args[0].grad.norm


def test_without_asking_for_them_arguments_have_no_gradients() -> None:
    with hookline.watch(model := nn.Linear(2, 2), grads=True) as run:
        model(torch.ones(1, 2, requires_grad=True)).sum().backward()

    assert run[""].grad_input == (None,)


def test_an_unknown_kind_of_gradients_is_an_error_and_leaves_no_hook() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(hookline.ArgumentError, match="grads must be True, False or 'input', not 'output'"):
        hookline.watch(model, grads="output")  # type: ignore[arg-type]
    assert type(model) is nn.Linear


def test_an_output_that_no_gradient_reaches_has_none() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Gives(Tensor.detach), nn.Linear(2, 2))
    with hookline.watch(model, grads=True) as run:
        model(torch.ones(1, 2)).sum().backward()

    assert run["0"].grad_output is None
    assert run["2"].grad_output is not None


class OnlyLeft(torch.autograd.Function):
    """Gives the gradient to the first of its two inputs alone."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        return left + right

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, None


def test_an_output_whose_gradient_is_undefined_has_none() -> None:
    class Join(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return OnlyLeft.apply(self.left(x), self.right(x))

    model = Join()
    with hookline.watch(model, grads=True) as run:
        model(torch.ones(1, 2)).sum().backward()

    assert run["left"].grad_output.mean == 1.0
    assert run["right"].grad_output is None


def test_of_several_outputs_those_that_were_used_have_gradients() -> None:
    x = torch.ones(3, 2, requires_grad=True)
    with hookline.watch(model := Gives(torch.unbind), grads=True) as run:
        model(x)[1].sum().backward()

    assert [info and info.mean for info in run[""].grad_output] == [None, 1.0, None]


def test_without_grad_mode_there_is_no_gradient() -> None:
    x = torch.ones(1, requires_grad=True)
    with hookline.watch(model := nn.Identity(), grads=True) as run, torch.no_grad():
        y = model(x)
    y.backward()

    assert run[""].grad_output is None


def test_a_gradient_that_comes_after_the_block_is_not_recorded() -> None:
    model = nn.Linear(2, 1)
    with hookline.watch(model, grads=True) as run:
        loss = model(torch.ones(1, 2)).sum()
    loss.backward()

    assert run[""].grad_output is None


def test_a_second_backward_replaces_the_gradient_of_the_first() -> None:
    model = nn.Linear(2, 1)
    with hookline.watch(model, grads=True) as run:
        y = model(torch.ones(1, 2)).sum()
        y.backward(retain_graph=True)
        (y * 5).backward()

    assert run[""].grad_output.mean == 5.0


def test_gradients_of_gradients_can_be_taken() -> None:
    model = nn.Tanh()
    x = torch.tensor([0.5], requires_grad=True)
    with hookline.watch(model, keep="tensor", grads=True) as run:
        (first,) = torch.autograd.grad(model(x), x, create_graph=True)
        (second,) = torch.autograd.grad(first, x)

    tanh = torch.tanh(torch.tensor([0.5]))
    assert torch.allclose(second, -2 * tanh * (1 - tanh**2))
    assert run[""].grad_output is not None


# Exceptions


class Broken(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [ValueError("no such shape"), KeyboardInterrupt("by hand"), SystemExit(3), GeneratorExit()],
    ids=lambda e: type(e).__name__,
)
def test_an_exception_leaves_the_record_up_to_it(error: BaseException) -> None:
    model = nn.Sequential(nn.ReLU(), nn.Sequential(Broken(error)), nn.ReLU())

    with pytest.raises(type(error)) as caught, hookline.watch(model) as run:
        model(torch.ones(1))

    text = f"{type(error).__name__}: {error}"
    assert caught.value is error
    assert [(call.path, call.error) for call in run] == [("", text), ("0", None), ("1", text), ("1.0", text)]
    assert all(call.seconds > 0 for call in run)
    assert run["1"].output is None


def test_after_an_exception_the_model_is_as_it_was() -> None:
    model = nn.Sequential(Broken(ValueError()))
    before = [dict(vars(module)) for module in model.modules()]

    with pytest.raises(ValueError), hookline.watch(model):
        model(torch.ones(1))

    assert [dict(vars(module)) for module in model.modules()] == before
    assert [type(module) for module in model.modules()] == [nn.Sequential, Broken]


def test_after_an_exception_that_was_caught_recording_goes_on() -> None:
    model = nn.Sequential(nn.ReLU(), Broken(ValueError()))
    with hookline.watch(model) as run:
        with pytest.raises(ValueError):
            model(torch.ones(1))
        model[0](torch.ones(1))

    assert [(call.path, call.parent and call.parent.path) for call in run] == [
        ("", None),
        ("0", ""),
        ("1", ""),
        ("0", None),
    ]


def test_a_module_that_catches_what_its_child_raised_has_no_error() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.child = Broken(ValueError("of the child"))

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.child(x)
            except ValueError:
                return x

    model = Careful()
    with hookline.watch(model) as run:
        model(torch.ones(1))

    assert (run["child"].error, run[""].error, run[""].output.mean) == ("ValueError: of the child", None, 1.0)


def test_an_exception_outside_of_the_model_ends_the_block_and_no_call() -> None:
    model = nn.ReLU()

    with pytest.raises(ZeroDivisionError), hookline.watch(model) as run:
        model(torch.ones(1))
        _ = 1 / 0

    assert run[""].error is None
    assert type(model) is nn.ReLU


# What stays alive


def watched_tensors(model: nn.Module, **settings: Any) -> tuple[Run, list[weakref.ref[Tensor]]]:
    """A run, and weak references to every tensor that a module took or gave."""
    references: list[weakref.ref[Tensor]] = []

    def note(call: hookline.Call) -> None:
        references.extend([weakref.ref(call.args[0]), weakref.ref(call.output)])

    with hookline.on(model, "**", after=note), hookline.watch(model, **settings) as run:
        loss = model(torch.ones(1, 4)).square().sum()
        if settings.get("grads"):
            loss.backward()
    return run, references


@pytest.mark.usefixtures("without_gc")
@pytest.mark.parametrize("grads", [False, True], ids=["forward", "with gradients"])
@pytest.mark.parametrize(
    "keep", ["shape", "stats", lambda tensor: tensor.sum().item()], ids=["shape", "stats", "function"]
)
def test_without_keeping_tensors_none_is_alive_after_the_call(keep: Any, grads: bool) -> None:
    run, references = watched_tensors(network(), keep=keep, grads=grads)

    assert len(references) >= 2
    assert [reference() for reference in references] == [None] * len(references)
    assert len(run) == 6


@pytest.mark.usefixtures("without_gc")
def test_without_keeping_tensors_none_is_alive_inside_of_the_block() -> None:
    model = network()
    with hookline.watch(model, keep="stats", grads=True):
        reference = weakref.ref(model(torch.ones(1, 4)))

        assert reference() is None


@pytest.mark.usefixtures("without_gc")
@pytest.mark.parametrize("keep", ["tensor", "copy"])
def test_kept_tensors_go_with_the_run(keep: Any) -> None:
    run, references = watched_tensors(network(), keep=keep, inputs="tensor", grads=True)
    references += [weakref.ref(call.output.value) for call in run]
    references += [weakref.ref(call.output.grad.value) for call in run]

    assert all(reference() is not None for reference in references[-6:])
    del run
    assert [reference() for reference in references] == [None] * len(references)


@pytest.mark.usefixtures("without_gc")
def test_kept_tensors_go_with_the_run_while_the_graph_lives_on() -> None:
    model = nn.Sequential(Gives(lambda x: x * 1), Gives(lambda x: x.exp()))
    x = torch.ones(3, requires_grad=True)
    with hookline.watch(model, keep="tensor", grads=True) as run:
        result = model(x)
        result.sum().backward(retain_graph=True)
    gradient, first = weakref.ref(run["0"].output.grad.value), weakref.ref(run["0"].output.value)
    del run

    assert gradient() is None
    del result
    assert first() is None


@pytest.mark.usefixtures("without_gc")
def test_a_kept_gradient_with_a_graph_of_its_own_goes_with_the_run() -> None:
    model = nn.Sequential(nn.Tanh(), nn.Tanh())
    x = torch.ones(3, requires_grad=True)
    with hookline.watch(model, keep="tensor", grads=True) as run:
        gradients = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    references = [weakref.ref(call.output.value) for call in run]
    references += [weakref.ref(call.output.grad.value) for call in run]
    del run, gradients

    assert [reference() for reference in references] == [None] * 6


@pytest.mark.usefixtures("without_gc")
@pytest.mark.parametrize("keep", ["stats", "tensor"])
def test_after_an_exception_nothing_is_alive(keep: Any) -> None:
    references: list[weakref.ref[Any]] = []

    def fail(x: Tensor) -> Tensor:
        references.append(weakref.ref(x))
        raise ValueError("in the middle")

    def watched() -> None:
        model = nn.Sequential(nn.Linear(4, 4), Gives(fail))
        references.append(weakref.ref(model))
        try:
            with hookline.watch(model, keep=keep, inputs="shape", grads=True):
                model(torch.ones(1, 4))
        except ValueError:
            pass

    watched()

    assert [reference() for reference in references] == [None, None]


@pytest.mark.usefixtures("without_gc")
def test_a_run_does_not_keep_the_model_alive() -> None:
    model = network()
    with hookline.watch(model, keep="stats", grads=True) as run:
        model(torch.ones(1, 4)).sum().backward()
    reference = weakref.ref(model)
    del model

    assert reference() is None
    assert len(run) == 6


# Nothing is changed


def test_watching_with_every_keep_gives_the_same_elements() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(4, 2))
    x = torch.randn(3, 4)

    def outcome() -> list[Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        result = model(x)
        result.square().sum().backward()
        return [result.detach(), *(parameter.grad for parameter in model.parameters()), torch.get_rng_state()]

    bare = outcome()
    for keep in ("shape", "stats", "tensor", "copy", torch.numel):
        with hookline.watch(model, keep=keep, inputs=keep, grads=True):
            watched = outcome()
        assert all(torch.equal(left, right) for left, right in zip(bare, watched, strict=True))


def test_returned_parameter_has_its_calls_gradient_and_no_hook():
    class Gives(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2))

        def forward(self):
            return self.weight

    module = Gives()
    with hookline.watch(module, grads=True) as run:
        for step in range(3):
            (module() * (step + 1)).sum().backward()
        module()
    assert [call.output.grad.max for call in run.calls[:3]] == [1, 2, 3]
    assert not module.weight._backward_hooks


def test_a_keep_function_runs_without_gradients():
    module = torch.nn.Linear(2, 2)
    with hookline.watch(module, keep=lambda tensor: tensor.norm()) as run:
        module(torch.ones(1, 2))
    assert run[""].output.value.grad_fn is None


@pytest.mark.parametrize("keep", ["stats", "copy", lambda tensor: tensor.norm()])
def test_an_exported_graph_holds_nothing_of_the_watch(keep):
    module, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    plain = [node.op for node in torch.export.export(module, (x,), strict=False).graph.nodes]
    with hookline.watch(module, keep=keep):
        watched = torch.export.export(module, (x,), strict=False)
    assert [node.op for node in watched.graph.nodes] == plain


def test_a_function_mode_of_the_callers_sees_nothing_of_the_watch():
    from torch.overrides import TorchFunctionMode

    class Counting(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    def count():
        seen.clear()
        with Counting():
            module(x)
        return [
            function for function in seen if "__get__" not in str(function) and "requires_grad" not in str(function)
        ]

    seen, module, x = [], torch.nn.Linear(2, 2), torch.ones(1, 2)
    plain = count()
    with hookline.watch(module):
        assert count() == plain


def test_value_that_cannot_be_inspected_is_recorded_by_class():
    class Secret(dict):
        def items(self):
            raise RuntimeError("no")

    class Gives(torch.nn.Module):
        def forward(self):
            return Secret(a=1)

    module = Gives()
    with hookline.watch(module) as run:
        module()
    assert run[""].output.type == "Secret"


def test_a_failing_keep_function_is_blamed_on_the_line_that_watches():
    def broken(tensor):
        raise ValueError("mine")

    module = torch.nn.Linear(2, 2)
    with hookline.watch(module, keep=broken), pytest.raises(ValueError, match="mine") as caught:
        module(torch.ones(1, 2))
    assert f"added at {__file__}" in caught.value.__notes__[0]


def test_container_adds_no_second_hook_to_its_childs_output():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval()
    with hookline.watch(module, grads=True) as run:
        output = module(torch.ones(1, 2))
        assert len(output._backward_hooks) == 1
        output.sum().backward()
    assert [call.output.grad.norm for call in run] == [run["0"].output.grad.norm] * 3
