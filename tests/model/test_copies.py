"""Copies of values with their tensors."""

from typing import Any

import pytest
import torch

from hookline.model.copies import copied

X = torch.ones(3, 4)


@pytest.mark.parametrize("value", [[X, X], {"a": (X,)}, (1, "b", None)])
def test_copies_are_of_ones_own(value: Any) -> None:
    twin = copied(value)

    assert type(twin) is type(value)
    if isinstance(value, list):
        assert twin[0] is twin[1] is not X
