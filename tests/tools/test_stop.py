"""stop_after: the forward ends where it may, gives back what was asked for, and leaves nothing."""

import threading

import pytest
import torch
from torch import nn

import hookline
from hookline import EditError, edits
from hookline.testing import assert_unhooked


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)), nn.Linear(4, 2))


@pytest.fixture
def ran(model):
    """The paths of the modules that ran to their end."""
    found = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: found.append(name))
    return found


X = torch.ones(3, 4)


def test_model_returns_the_output_and_skips_the_rest(model, ran):
    with hookline.stop_after(model, "1.0"):
        found = model(X)
    assert ran == ["0", "1.0"]
    assert torch.equal(found["1.0"], torch.relu(model[0](X)))
    assert_unhooked(model)


def test_several_modules_are_waited_for_and_given_in_the_models_order(model, ran):
    with hookline.stop_after(model, ["1.1", "0"]):
        assert [*model(X)] == ["0", "1.1"]
    assert ran == ["0", "1.0", "1.1"]


def test_code_around_the_models_call_goes_on(model):
    with hookline.stop_after(model, "0"):
        first = model(X)
        second = model(X)
    assert torch.equal(first["0"], second["0"])
    assert model(X).shape == (3, 2)


def test_gradients_flow_through_what_it_gives(model):
    with hookline.stop_after(model, "0"):
        model(X)["0"].sum().backward()
    assert model[0].weight.grad is not None
    assert model[2].weight.grad is None


def test_edits_before_the_stop_count(model):
    with hookline.stop_after(model, "0"), hookline.edit(model, "0", output=edits.zero()):
        assert model(X)["0"].abs().max() == 0


def test_the_models_own_except_does_not_catch_it(model):
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            try:
                return self.inner(x)
            except Exception:
                return None

    careful = Careful()
    with hookline.stop_after(careful, "inner.0"):
        assert [*careful(X)] == ["inner.0"]


def test_a_module_of_several_calls_gives_its_first_output():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x):
            return self.layer(self.layer(x) + 1)

    model = Twice()
    with hookline.stop_after(model, "layer"):
        assert model(torch.zeros(())) == {"layer": torch.zeros(())}


def test_a_module_that_is_not_called_is_an_error_after_the_forward(model):
    model.unused = nn.Linear(1, 1)
    model.forward = lambda x: model[0](x)
    with hookline.stop_after(model, "unused"), pytest.raises(EditError, match="ended without a call of unused"):
        model(X)
    assert model(X).shape == (3, 4)


def test_an_error_of_the_model_reaches_the_caller(model):
    with hookline.stop_after(model, "2"), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.ones(3, 5))
    assert model(X).shape == (3, 2)


def test_a_part_of_the_model_called_by_itself_is_not_stopped(model):
    with hookline.stop_after(model, "1.0"):
        assert model[1](X).shape == (3, 4)


def test_each_thread_stops_at_its_own_forward(model):
    found = {}

    def forward(name):
        found[name] = [*model(X)]

    with hookline.stop_after(model, "0"):
        threads = [threading.Thread(target=forward, args=(name,)) for name in "ab"]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert found == {"a": ["0"], "b": ["0"]}


def test_the_model_itself_is_an_error(model):
    with pytest.raises(hookline.ArgumentError, match="the model itself ends by itself"):
        hookline.stop_after(model, "**")


def test_a_watch_sees_the_calls_that_were_ended(model):
    with hookline.watch(model) as run, hookline.stop_after(model, "1.0"):
        model(X)
    assert [call.path for call in run] == ["", "0", "1", "1.0"]
    assert run["1"].error == "Stopped: stop_after has all that it waits for"
    assert run[""].error is None


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.b(self.a(x))


X3 = torch.ones(2, 3)


def test_call_it_stops_at_is_recorded_with_its_output():
    model = nn.Sequential(Inner(), nn.ReLU())
    with hookline.watch(model) as run, hookline.stop_after(model, "0.a"):
        model(X3)
    assert run["0.a"].error is None
    assert [*run["0.a"].output.shape] == [2, 3]
    assert [call.path for call in run] == ["", "0", "0.a"]


def test_gradients_of_the_call_it_stops_at_are_edited():
    model = nn.Sequential(Inner(), nn.ReLU())
    with hookline.edit(model, "0.a", grad_output=hookline.edits.zero()), hookline.stop_after(model, "0.a"):
        model(X3)["0.a"].sum().backward()
    assert model[0].a.weight.grad.abs().sum() == 0


def test_backward_hooks_of_the_call_it_stops_at_run():
    model, seen = nn.Sequential(Inner(), nn.ReLU()), []
    model[0].a.register_full_backward_hook(lambda *_: seen.append("PyTorch's"))
    on = hookline.on(model, "0.a", backward=lambda call: seen.append("ours"))
    with on, hookline.stop_after(model, "0.a"):
        model(X3.clone().requires_grad_())["0.a"].sum().backward()
    assert sorted(seen) == ["PyTorch's", "ours"]


def test_guard_does_not_blame_the_call_it_stops_at():
    model = nn.Sequential(Inner(), nn.ReLU())
    with hookline.guard(model), hookline.stop_after(model, "0.a"):
        assert model(X3)["0.a"].shape == (2, 3)


def test_model_that_calls_itself_is_stopped_at_its_outermost_call():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last = nn.Identity(), nn.Identity()

        def forward(self, x, depth=1):
            x = self(x, depth - 1) + 1 if depth else self.layer(x)
            return self.last(x)

    model = Again()
    with hookline.stop_after(model, ["layer", "last"]):
        assert set(model(X3)) == {"layer", "last"}


def test_stop_after_nests():
    model = nn.Sequential(Inner(), nn.ReLU())
    with hookline.stop_after(model, "1"), hookline.stop_after(model[0], "a"):
        with pytest.raises(Exception, match="dict"):
            model(X3)
    with hookline.stop_after(model, "0"), hookline.stop_after(model[0], "a"):
        assert list(model(X3)["0"]) == ["a"]
