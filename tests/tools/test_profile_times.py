"""profile: each module has the time that it takes, forward and backward, however it is called; and Ctrl-C."""

import gc

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from toys import SLEEP, Slow, about

import hookline
from hookline.testing import assert_unhooked

X = torch.ones(2, 4)
pytestmark = pytest.mark.usefixtures("simulated")


def test_a_module_that_takes_its_time_is_found_forward_and_backward():
    model = nn.Sequential(nn.Linear(4, 4), Slow(forward=SLEEP), nn.Sequential(Slow(backward=SLEEP)), nn.Linear(4, 4))
    found = hookline.profile(model, X, repeat=3)
    assert found["1"].forward_self == about(SLEEP)
    assert found["1"].backward_self < SLEEP / 50
    assert found["2.0"].backward_self == about(SLEEP)
    assert found["2.0"].forward_self < SLEEP / 50
    assert found["2"].backward == about(SLEEP)
    assert found["2"].backward_self < SLEEP / 50
    assert max(found.by_class(), key=lambda row: row.seconds_self).type == "Slow"


def test_two_branches_of_one_tensor_have_each_their_own_time():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.a, self.b = nn.Linear(4, 4), Slow(SLEEP, SLEEP), Slow(2 * SLEEP, 2 * SLEEP)

        def forward(self, x):
            x = self.first(x)
            return self.a(x) + self.b(x)

    found = hookline.profile(Branches(), X, repeat=3)
    for path, seconds in (("a", SLEEP), ("b", 2 * SLEEP)):
        assert found[path].forward_self == about(seconds)
        assert found[path].backward_self == about(seconds)


def test_towers_without_input_gradients_keep_their_own_times():
    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Sequential(nn.Linear(4, 4), Slow(backward=SLEEP))
            self.b = nn.Sequential(nn.Linear(4, 4), Slow(backward=3 * SLEEP))

        def forward(self, x):
            return self.a(x) * self.b(x)

    found = hookline.profile(Towers(), X, repeat=3)
    assert found["a"].backward == about(SLEEP)
    assert found["b"].backward == about(3 * SLEEP)
    assert found["a.0"].backward < SLEEP / 50
    assert found["b.0"].backward < SLEEP / 50


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Sequential(nn.Linear(32, 32), nn.Tanh()), nn.Linear(32, 4))


def test_the_times_of_all_modules_by_themselves_are_the_whole():
    found = hookline.profile(network(), torch.ones(8, 16), repeat=5)
    assert sum(cost.forward_self for cost in found) == pytest.approx(found.total.forward)
    assert sum(cost.backward_self for cost in found) == pytest.approx(found.total.backward)
    assert sum(row.forward_self for row in found.by_path()) == pytest.approx(found[""].forward)
    assert sum(row.forward_self for row in found.by_class()) == pytest.approx(found[""].forward)


def test_what_a_checkpoint_computes_again_is_time_of_the_backward():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.slow = nn.Linear(4, 4), nn.Sequential(Slow(forward=SLEEP), nn.Linear(4, 4))

        def forward(self, x):
            return checkpoint(self.slow, self.first(x), use_reentrant=False)

    found = hookline.profile(Checkpointed(), X, repeat=3)
    assert [cost.recompute for cost in found if cost.path == "slow.0"] == [False, True]
    assert found["slow.0"].forward == about(SLEEP)
    assert found["slow.0"].backward == about(SLEEP)
    assert found["slow"].backward == about(SLEEP)
    assert found["slow.0"].calls == 1


def test_a_module_called_twice_is_one_row_of_two_calls():
    layer = nn.Linear(4, 4)
    found = hookline.profile(nn.Sequential(layer, layer), X)
    assert found["0"].calls == 2
    assert found["0"].flops == found["0", 0].flops + found["0", 1].flops


def test_layers_dropped_at_random_are_the_same_in_every_step():
    class Random(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(8))

        def forward(self, x):
            for layer in self.layers:
                x = layer(x) if torch.rand(()) < 0.5 else x
            return x.sum() + x.requires_grad_().sum()

    torch.manual_seed(0)
    assert hookline.profile(Random(), X, repeat=3).repeat == 3


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_of_either_kind_computes_again_in_the_backward(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.slow = nn.Linear(4, 4), nn.Sequential(Slow(SLEEP, SLEEP), nn.Linear(4, 4))

        def forward(self, x):
            return checkpoint(self.slow, self.first(x), use_reentrant=reentrant)

    found = hookline.profile(Checkpointed(), X, repeat=3)
    assert found["slow.0"].forward == about(SLEEP)
    assert found["slow.0"].backward == about(2 * SLEEP)
    assert found[""].backward_self < SLEEP / 50
    assert found["first"].backward < SLEEP / 50


def test_every_call_of_a_module_counts():
    slow = Slow(SLEEP, SLEEP)
    found = hookline.profile(nn.Sequential(nn.Linear(4, 4), slow, slow, nn.Sequential(slow)), X, repeat=3)
    assert found["1"].calls == 3
    assert found["1"].forward == about(3 * SLEEP)
    assert found["1"].backward == about(3 * SLEEP)
    assert found["3"].forward == about(SLEEP)


def test_a_loss_may_call_the_model_again():
    model = nn.Sequential(nn.Linear(4, 4), Slow(SLEEP, SLEEP))
    found = hookline.profile(model, X, loss=lambda output: (model(X) + output).sum(), repeat=3)
    assert found[""].calls == 2
    assert found.total.forward == about(2 * SLEEP)
    assert found["1"].backward_self == about(2 * SLEEP)


def test_a_module_that_calls_itself_counts_each_time_once():
    class Recursive(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.slow = nn.Linear(4, 4), Slow(SLEEP, SLEEP)

        def forward(self, x, more=2):
            x = self.slow(self.layer(x))
            return x if more == 0 else self(x, more - 1)

    found = hookline.profile(Recursive(), X, repeat=3)
    assert found[""].calls == 3
    assert found[""].forward == found.total.forward == about(3 * SLEEP)
    assert found[""].backward == about(3 * SLEEP)
    assert found[""].forward_self < SLEEP / 50


def test_the_modules_by_themselves_take_what_a_plain_step_takes():
    found = hookline.profile(nn.Sequential(nn.Linear(4, 4), Slow(SLEEP, 2 * SLEEP), nn.Sequential(Slow(SLEEP))), X)
    forward, backward = found.plain
    assert sum(cost.forward_self for cost in found) == pytest.approx(forward, rel=0.01)
    assert sum(cost.backward_self for cost in found) == pytest.approx(backward, rel=0.01)


class Interrupts(torch.autograd.Function):
    """Ctrl-C in a forward or in a backward, once a few have been."""

    left = {"forward": 0, "backward": 0}

    @classmethod
    def count(cls, phase):
        cls.left[phase] -= 1
        if cls.left[phase] == 0:
            raise KeyboardInterrupt

    @staticmethod
    def forward(ctx, x):
        Interrupts.count("forward")
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Interrupts.count("backward")
        return gradient


class Interrupted(nn.Module):
    def forward(self, x):
        return Interrupts.apply(x)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 7))  # counted, warm; then plain and read by turns
@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_ctrl_c_in_any_step_leaves_the_model_as_it_was(phase, number):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), Interrupted())
    model[0].weight.grad = gradient = torch.ones(4, 4)
    buffers = [buffer.clone() for buffer in model.buffers()]
    Interrupts.left = {"forward": 0, "backward": 0} | {phase: number}
    with pytest.raises(KeyboardInterrupt):
        hookline.profile(model, X, repeat=2)
    assert_unhooked(model)
    assert model[0].weight.grad is gradient
    assert model[0].bias.grad is None
    assert all(torch.equal(buffer, old) for buffer, old in zip(model.buffers(), buffers, strict=True))
    assert gc.isenabled()
    assert torch.is_grad_enabled()
