"""Whose difference it is, where only recorded gradients can tell."""

import pytest

from hookline.compare.culprits import FURTHER, judge
from hookline.compare.difference import Pair
from hookline.matching.tensors import Difference

SHAPES, DTYPES = ((2,), (2,)), ("float32", "float32")


def difference(error: float, *, differs: bool, nan: int = 0) -> Difference:
    return Difference(SHAPES, DTYPES, differs=differs, identical=False, error=error, nan=nan)


def is_culprit(received: float, sent: float, *, nan: int = 0, agrees: bool = True) -> bool | None:
    """The word on a module that got gradients that far off, and sent on others that far off."""
    pair = Pair(
        *("layer", "layer", 0, "Linear", "Linear", 0, None, 0),
        outputs={"": difference(0.0, differs=False)},
        grads={"": difference(received, differs=not agrees)},
        grad_inputs={"0": difference(sent, differs=True, nan=nan)},
    )
    return judge([pair], {})[0].is_culprit


@pytest.mark.parametrize(("times", "own"), [(2.9, False), (3.0, False), (3.1, True), (30.0, True)])
def test_gradient_error_is_own_from_three_times_the_received(times: float, own: bool) -> None:
    assert FURTHER == 3.0
    assert is_culprit(1e-3, times * 1e-3) is own


def test_error_sent_back_for_none_received_is_a_modules_own() -> None:
    assert is_culprit(0.0, 1e-9) is True


def test_nan_sent_back_is_further_off_than_any_number() -> None:
    assert is_culprit(1e30, 0.0, nan=1) is True


def test_module_is_cleared_if_its_received_gradients_differ() -> None:
    assert is_culprit(1e-3, 1.0, agrees=False) is False
