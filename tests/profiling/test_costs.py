"""What a step costs where it cannot all be counted."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import hookline


class Uncountable(nn.Module):
    """PyTorch's counter of FLOPs fails on nested tensors."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.b(self.a(x).relu())


def jagged():
    return torch.nested.nested_tensor([torch.ones(3, 8), torch.ones(5, 8)], layout=torch.jagged)


def mean_square(output):
    return output.values().square().mean()


def test_times_and_bytes_of_jagged_tensors_are_told_and_flops_are_not_known():
    found = hookline.profile(Uncountable(), jagged(), loss=mean_square, repeat=2)
    assert found["a"].forward > 0
    assert found["a"].backward > 0
    assert found["b"].parameter_bytes == 4 * (8 * 4 + 4)
    assert math.isnan(found.total.flops)
    assert math.isnan(found.total.backward_flops)
    assert {cost["flops"] for cost in json.loads(found.to_json())["costs"]} == {"nan"}


def test_the_values_of_a_jagged_tensor_are_kept_for_the_backward():
    found = hookline.profile(Uncountable(), jagged(), loss=mean_square, repeat=1)
    assert found["a"].kept >= 4 * 8 * 8
    assert found.total.kept >= 2 * 4 * 8 * 8


def test_that_flops_are_not_known_is_shown_with_the_reason():
    found = hookline.profile(Uncountable(), jagged(), loss=mean_square, repeat=1)
    lines = repr(found).splitlines()
    assert lines[1].startswith("FLOPs unknown")
    assert lines[2].startswith("PyTorch's FLOP counter failed in this model: TypeError")
    assert " ? " in repr(found)
    assert "FLOP counter failed" in found._repr_html_()


def test_what_a_count_fails_on_does_not_hide_the_models_own_error():
    class Fails(Uncountable):
        def forward(self, x):
            super().forward(x)
            raise ValueError("its own")

    with pytest.raises(ValueError, match="its own") as caught:
        hookline.profile(Fails(), jagged(), loss=mean_square)
    assert caught.value.__context__ is None


def test_flops_are_unknown_for_modules_called_in_other_threads():
    class Threaded(Uncountable):
        def forward(self, x):
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(self.a, x).result() + self.a(x)

    found = hookline.profile(Threaded(), torch.ones(2, 8), repeat=1, backward=False)
    assert math.isnan(found.total.flops)
    assert found.uncounted.startswith("it does not see other threads")


def test_a_model_that_is_counted_has_no_reason():
    assert hookline.profile(nn.Linear(2, 2), torch.ones(1, 2), repeat=1).uncounted == ""
