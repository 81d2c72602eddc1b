"""The contract: with a watch on it, every model of the zoo gives the very bits that it gives without, and is afterwards what it was."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
from torch import nn

import hookline
from hookline.engine.hook_dicts import HOOK_DICTS
from zoo.models import ZOO, Specimen
from zoo.runs import assert_close_gradients, assert_identical, run


def state(model: nn.Module) -> list[object]:
    """Classes, attribute names and hook dicts of every module: all that an attachment could leave behind."""
    return [
        (
            type(module).__qualname__,
            type(module).__bases__,
            [*module.__dict__],
            [len(module.__dict__.get(name, ())) for name in HOOK_DICTS],
        )
        for module in model.modules()
    ]


def hook_dicts(model: nn.Module) -> list[int]:
    return [id(module.__dict__.get(name)) for module in model.modules() for name in HOOK_DICTS]


@contextmanager
def watched(model: nn.Module) -> Iterator[None]:
    with hookline.watch(model, grads=True, keep="stats") as run:
        yield
    assert run.calls, "nothing was recorded"
    assert all(call.error is None for call in run)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
def test_outputs_gradients_random_state_and_buffers_are_the_same_elements(specimen: Specimen, train: bool) -> None:
    assert_identical(run(specimen, train=train), run(specimen, train=train, around=watched))


@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
def test_the_model_is_afterwards_what_it_would_be_without(specimen: Specimen) -> None:
    after, kept = [], []

    def looking(
        around: Callable[[nn.Module], AbstractContextManager[object]],
    ) -> Callable[[nn.Module], AbstractContextManager[None]]:
        @contextmanager
        def looked_at(model: nn.Module) -> Iterator[None]:
            before = hook_dicts(model)
            with around(model):
                yield
            after.append(state(model))
            kept.append(hook_dicts(model) == before)

        return looked_at

    run(specimen, train=False, around=looking(nullcontext))
    run(specimen, train=False, around=looking(watched))
    assert after[1] == after[0]
    assert kept[1] == kept[0]


@contextmanager
def inputs_watched(model: nn.Module) -> Iterator[None]:
    with hookline.watch(model, grads="input", keep="shape") as run:
        yield
    assert all(call.error is None for call in run)


ALIASED = [specimen for specimen in ZOO if specimen.name != "returns_own_parameter"]  # which is given as a tensor then


@pytest.mark.parametrize("specimen", ALIASED, ids=lambda specimen: specimen.name)
def test_with_input_gradients_only_the_order_of_sums_differs(
    specimen: Specimen,
) -> None:
    assert_close_gradients(run(specimen, train=True), run(specimen, train=True, around=inputs_watched))


@contextmanager
def guarded(model: nn.Module) -> Iterator[None]:
    with hookline.guard(model, then=lambda error: None):
        yield


@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
def test_guard_changes_no_element(specimen: Specimen) -> None:
    assert_identical(run(specimen, train=True), run(specimen, train=True, around=guarded))


@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
def test_a_guard_raises_in_no_model_but_the_one_that_gives_nan(specimen: Specimen) -> None:
    gives_nan = specimen.name == "not_a_number"
    with pytest.raises(hookline.NonFiniteError) if gives_nan else nullcontext():
        run(specimen, train=True, around=hookline.guard)
