"""Picking one tensor out of a nested value, and putting another in its place."""

import pytest
import torch

from hookline import EditError
from hookline.model.keypath import as_arguments, named, part_at, pick, with_part

X, Y = torch.zeros(2), torch.ones(3, dtype=torch.int64)


def test_a_tensor_is_picked_by_no_key():
    assert pick(X) == ()


def test_the_only_tensor_is_found_however_deep():
    assert pick([None, {"a": (3, X)}]) == (1, "a", 1)


def test_a_key_that_ends_at_a_container_of_one_tensor_leads_on_to_it():
    assert pick({"a": (None, X), "b": Y}, "a") == ("a", 1)


def test_a_key_that_ends_at_several_names_them():
    with pytest.raises(EditError, match=r"holds 2 tensors; pick one with key=, such as key=\('a', 0\)"):
        pick({"a": (X, Y)}, "a")


def test_a_key_too_deep_names_what_is_there():
    with pytest.raises(EditError, match=r"the output has no part \(0, 1\); it has 0: float32\[2\], 1: int64\[3\]"):
        pick((X, Y), (0, 1), whose="the output")


def test_true_is_not_the_place_one():
    with pytest.raises(EditError, match="no part"):
        pick((X, Y), "1")


def test_a_part_is_exchanged_and_what_was_given_stays():
    given = {"a": [X, (X, Y)]}
    changed = with_part(given, ("a", 1, 0), Y)
    assert part_at(changed, ("a", 1, 0)) is Y
    assert given["a"][1][0] is X
    assert changed["a"][0] is X


def test_a_part_that_cannot_be_set_is_an_error():
    class Sealed(dict):
        def __setitem__(self, key, value):
            raise TypeError

    with pytest.raises(EditError, match="a Sealed does not allow setting its part 'a'"):
        with_part(Sealed(a=X), ("a",), Y)


def test_arguments_are_one_value_and_back():
    value = named((X, 1), {"mask": Y})
    assert pick(value, "mask") == ("mask",)
    assert as_arguments(value) == ((X, 1), {"mask": Y})
