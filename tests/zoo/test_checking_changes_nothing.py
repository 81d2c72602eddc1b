"""A check changes nothing: over the zoo, a run in its block, and one after it, give the very bits that they give without."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from torch import nn

import hookline
from hookline.testing import assert_unhooked
from zoo.models import ZOO, Specimen
from zoo.runs import assert_identical, expected, one_thread, run

# A forward makes a lazy module, that of a check as any other. Without inputs, check(model) is a block.
MADE_BY_A_FORWARD = ("lazy_linear",)
WITHOUT_INPUTS = ("returns_own_parameter",)


@contextmanager
def checked(model: nn.Module) -> Iterator[None]:
    with hookline.check(model) as findings:
        yield
    assert findings.run.calls
    assert_unhooked(model)


@pytest.mark.slow
@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
def test_what_runs_in_a_checks_block_is_bit_for_bit_what_it_is_without(specimen: Specimen) -> None:
    assert_identical(run(specimen, train=True), run(specimen, train=True, around=checked))


@pytest.mark.slow
@pytest.mark.parametrize(
    "specimen",
    [each for each in ZOO if each.name not in MADE_BY_A_FORWARD + WITHOUT_INPUTS],
    ids=lambda specimen: specimen.name,
)
def test_a_model_is_after_a_check_what_it_was(specimen: Specimen) -> None:
    @contextmanager
    def after_a_check(model: nn.Module) -> Iterator[None]:
        args, kwargs = specimen.inputs()
        assert hookline.check(model, *args, loss=specimen.loss, **kwargs).run.calls
        yield

    with one_thread(), expected(specimen.warnings):
        plain, after = run(specimen, train=True), run(specimen, train=True, around=after_a_check)
    assert_identical(plain, after)
