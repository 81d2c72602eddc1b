"""What hookline offers to users' tests."""

import pytest
import torch

import hookline
from hookline.testing import assert_unhooked, recorded, toy


def test_the_toy_is_the_same_each_time_and_leaves_the_random_state():
    before = torch.get_rng_state()
    first, second = toy(), toy()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_recorded_gives_the_run_of_one_forward():
    assert [call.path for call in recorded(toy(), torch.zeros(1, 4))] == ["", "0", "1", "2", "2.0", "2.1", "3"]


def test_a_hook_left_behind_is_named():
    model = toy()
    with hookline.on(model, "2.0", before=print), pytest.raises(AssertionError, match=r"hooks are left on 2\.0$"):
        assert_unhooked(model)
    assert_unhooked(model)


def test_hooks_of_pytorchs_api_count_where_asked():
    model = toy()
    model[0].register_forward_hook(print)
    assert_unhooked(model)
    with pytest.raises(AssertionError, match=r"hooks are left on 0$"):
        assert_unhooked(model, torch_hooks=True)
