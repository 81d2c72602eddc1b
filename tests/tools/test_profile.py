"""profile: times, FLOPs and bytes are in the right module, add up to the whole, and the model is left as it was."""

import json

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from toys import SLEEP, Slow, about

import hookline
from hookline import RecordError
from hookline.testing import assert_unhooked


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Sequential(nn.Linear(32, 32), nn.Tanh()), nn.Linear(32, 4))


X = torch.ones(8, 16)


def test_what_is_no_module_is_refused():
    with pytest.raises(hookline.ArgumentError, match=r"expected a torch.nn.Module, not int"):
        hookline.profile(3, X)


# FLOPs and bytes


def test_flops_are_those_of_pytorchs_counter():
    model = network()
    counter = FlopCounterMode(display=False)
    with counter:
        forward = model(X)
        before = counter.get_total_flops()
        forward.square().mean().backward()
    found = hookline.profile(model, X)
    assert found.total.flops == before
    assert found.total.backward_flops == counter.get_total_flops() - before
    assert found["2"].flops == found["2.0"].flops == 2 * 8 * 32 * 32
    assert found["2"].flops_self == 0


def test_kept_bytes_are_what_saved_tensors_hooks_see():
    model = network()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen = {}

    def keep(tensor):
        seen.setdefault(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(X)
    del output
    expected = sum(size for place, size in seen.items() if place not in own)
    found = hookline.profile(model, X)
    assert found.total.kept == expected
    assert sum(cost.kept_self for cost in found) == expected


def test_parameters_and_moved_bytes_are_counted():
    found = hookline.profile(network(), X)
    assert found["0"].parameters == 16 * 32 + 32
    assert found["0"].parameter_bytes == 4 * (16 * 32 + 32)
    assert found["0"].moved == 4 * (8 * 16 + 8 * 32) + found["0"].parameter_bytes
    assert found["0"].intensity == found["0"].flops / found["0"].moved
    assert found[""].parameters == sum(parameter.numel() for parameter in network().parameters())


@pytest.mark.slow
def test_what_a_forward_lets_go_is_not_kept():
    class Wasteful(nn.Module):
        def __init__(self, waste):
            super().__init__()
            self.layer, self.waste = nn.Linear(64, 64), waste

        def forward(self, x):
            for _ in range(self.waste):
                self.layer(x).sigmoid()
            return self.layer(x).sigmoid()

    kept = [hookline.profile(Wasteful(waste), torch.ones(64, 64), repeat=1).total.kept for waste in (0, 8)]
    assert kept == [2 * 4 * 64 * 64] * 2


@pytest.mark.slow
def test_classes_and_parts_count_the_parameters_of_each_module_once():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 100))
    found = hookline.profile(model, torch.ones(2, 8), repeat=1)
    every = sum(parameter.numel() for parameter in model.parameters())
    assert next(row for row in found.by_class() if row.type == "Linear").parameters == every
    assert hookline.profile(model, torch.ones(2, 8), where="*", repeat=1).total.parameters == every


def test_a_container_has_no_intensity_of_its_own():
    found = hookline.profile(network(), X, repeat=1)
    assert found[""].intensity != found[""].intensity  # NaN


# On meta


def test_on_meta_flops_and_bytes_are_the_same_and_nothing_is_timed():
    model = network()
    real, meta = hookline.profile(model, X), hookline.profile(model, X, meta=True)
    assert [cost.flops for cost in meta] == [cost.flops for cost in real]
    assert [cost.kept for cost in meta] == [cost.kept for cost in real]
    assert meta.repeat == 0
    assert meta.total.forward != meta.total.forward  # NaN
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_a_model_without_weights_is_counted():
    with torch.device("meta"):
        model = network()
    assert hookline.profile(model, X).total.flops == hookline.profile(network(), X).total.flops


def test_a_shared_module_counts_where_it_was_called(tmp_path):
    class Block(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x)

    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Linear(64, 64)
            self.block = Block(self.shared)

        def forward(self, x):
            return self.block(self.block(x))

    found = hookline.profile(Shares(), torch.ones(64, 64), repeat=1)
    assert found["block"].flops == found["block", 0].flops + found["block", 1].flops == 2 * 2 * 64**3
    assert found["block"].forward == pytest.approx(found["block", 0].forward + found["block", 1].forward)
    found.collapsed(tmp_path / "stacks.txt")
    assert "forward;Shares;block;shared " in (tmp_path / "stacks.txt").read_text()


# What it leaves


def test_inputs_are_restored_and_equal_in_every_step():
    class Changes(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            x += 1
            return self.layer(x)

    x = torch.zeros(1, 3)
    hookline.profile(Changes(), x)
    assert x.tolist() == [[0, 0, 0]]


def test_gradients_buffers_and_random_state_are_restored():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model(torch.randn(3, 4)).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    values = [gradient.clone() for gradient in gradients]
    x = torch.randn(3, 4)
    buffers, state = [buffer.clone() for buffer in model.buffers()], torch.get_rng_state()
    hookline.profile(model, x)
    assert [parameter.grad for parameter in model.parameters()] == gradients
    assert all(torch.equal(gradient, value) for gradient, value in zip(gradients, values, strict=True))
    assert all(torch.equal(buffer, old) for buffer, old in zip(model.buffers(), buffers, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert_unhooked(model)


def test_an_error_of_the_model_reaches_the_caller_and_leaves_nothing():
    model = network()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        hookline.profile(model, torch.ones(2, 3))
    assert_unhooked(model)


class Breaks(torch.autograd.Function):
    """An identity whose backward fails."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise ValueError("its backward fails")


class Broken(nn.Module):
    def forward(self, x):
        return Breaks.apply(x)


@pytest.mark.parametrize(
    ("model", "note"),
    [
        (
            lambda: nn.Sequential(nn.Linear(16, 4), nn.Sequential(Broken()), nn.ReLU()),
            "in the backward of 1.0 (Broken, call 0)\n  inside 1 (Sequential, call 0)\n  inside the model",
        ),
        (lambda: nn.Sequential(nn.Linear(16, 4), nn.ModuleDict({"a": Broken()})["a"]), "in the backward of 1 (Broken"),
    ],
)
def test_an_error_of_the_backward_says_in_which_module(model, note):
    model = model()
    with pytest.raises(ValueError, match="its backward fails") as caught:
        hookline.profile(model, X)
    assert note in "".join(caught.value.__notes__)
    assert_unhooked(model)


def test_an_error_of_a_containers_own_backward_names_the_container():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(16, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.last(Breaks.apply(self.first(x)))

    with pytest.raises(ValueError) as caught:
        hookline.profile(Own(), X)
    assert caught.value.__notes__ == ["hookline: in the backward of the model (Own, call 0)"]


def test_an_error_of_the_loss_names_no_module():
    def loss(output):
        return Breaks.apply(output).sum()

    with pytest.raises(ValueError) as caught:
        hookline.profile(network(), X, loss=loss)
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeat": 0}, "repeat must be 1 or more"),
        ({"warmup": -1}, "warmup 0 or more"),
        ({"loss": lambda output: output.detach().sum()}, "the loss has no gradient; pass loss="),
    ],
)
def test_wrong_input_is_one_clear_error(options, message):
    with pytest.raises((hookline.ArgumentError, hookline.RecordError), match=message):
        hookline.profile(network(), X, **options)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_block_without_gradients_around_it_does_not_matter(mode):
    model = network()
    with mode():
        found = hookline.profile(model, torch.ones(8, 16), repeat=1)
        assert not torch.is_grad_enabled()
    assert found.total.backward_flops > 0


def test_a_loss_without_a_gradient_is_told_of_with_what_to_do():
    with pytest.raises(RecordError, match="no parameter requires a gradient.* pass backward=False"):
        hookline.profile(network().requires_grad_(False), X)


def test_a_model_that_turns_gradients_off_itself_is_told_of():
    class WithoutGradients(nn.Sequential):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    with pytest.raises(RecordError, match=r"the model itself turns gradients off, as by torch.no_grad\(\)"):
        hookline.profile(WithoutGradients(nn.Linear(16, 4)), X)


def test_without_backward_a_model_of_integers_is_profiled():
    found = hookline.profile(nn.Sequential(nn.Flatten()), torch.ones(2, 2, dtype=torch.int64), backward=False)
    assert len(found) == 2
    assert "backward" not in repr(found)


# What it shows


def test_it_prints_a_tree_with_a_bar_for_each_module():
    lines = repr(hookline.profile(network(), X)).splitlines()
    assert lines[0].startswith("Sequential: ")
    assert "profiling added" in lines[0]
    assert [line.split()[0] for line in lines[3:9]] == ["Sequential", "0", "1", "2", "0", "1"]
    assert lines[-1].startswith("self time by class: ")


def test_a_path_that_was_not_called_is_an_error_that_names_some():
    found = hookline.profile(network(), X)
    with pytest.raises(RecordError, match="'nosuch' is not in the profile"):
        found["nosuch"]


def test_it_becomes_a_data_frame():
    frame = hookline.profile(network(), X).to_pandas()
    assert len(frame) == 7
    assert {"forward", "backward_self", "flops", "kept", "intensity"} <= {*frame.columns}


def assert_trace(path):
    """The rules of Chrome's trace events: complete events with times, of one process, that nest on each track."""
    trace = json.loads(path.read_text())
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    for event in events:
        assert {"name", "cat", "ts", "dur", "pid", "tid", "args"} <= {*event}
        assert event["ts"] >= 0
        assert event["dur"] >= 0
    for track in {event["tid"] for event in events}:
        open_until = []
        for event in sorted((e for e in events if e["tid"] == track), key=lambda e: (e["ts"], -e["dur"])):
            while open_until and open_until[-1] <= event["ts"] + 1e-3:
                open_until.pop()
            assert not open_until or event["ts"] + event["dur"] <= open_until[-1] + 1e-3
            open_until.append(event["ts"] + event["dur"])
    return events


def test_the_trace_keeps_chromes_rules_and_has_forward_and_backward(tmp_path):
    hookline.profile(network(), X).perfetto(tmp_path / "trace.json")
    events = assert_trace(tmp_path / "trace.json")
    assert [event["name"] for event in events if event["cat"] == "forward"][1:] == ["0", "1", "2", "2.0", "2.1", "3"]
    assert {event["cat"] for event in events} == {"forward", "backward"}


def test_a_run_has_a_trace_too(tmp_path):
    model = network()
    with hookline.watch(model) as run:
        model(X)
    run.perfetto(tmp_path / "run.json")
    assert len(assert_trace(tmp_path / "run.json")) == 7


@pytest.mark.usefixtures("simulated")
def test_collapsed_stacks_have_a_line_for_each_module(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Slow(SLEEP, SLEEP)))
    hookline.profile(model, torch.ones(2, 4), repeat=1).collapsed(tmp_path / "stacks.txt")
    lines = dict(line.rsplit(" ", 1) for line in (tmp_path / "stacks.txt").read_text().splitlines())
    assert int(lines["forward;Sequential;1;0"]) == about(SLEEP * 1e6)
    assert int(lines["backward;Sequential;1;0"]) == about(SLEEP * 1e6)


def test_what_was_not_timed_has_no_trace(tmp_path):
    with pytest.raises(RecordError, match="nothing was timed"):
        hookline.profile(network(), X, meta=True).perfetto(tmp_path / "trace.json")
    assert [*tmp_path.iterdir()] == []


def test_parameters_are_shown_as_a_count_and_bytes_as_bytes():
    model = nn.Linear(1000, 1000, bias=False)
    shown = repr(hookline.profile(model, torch.ones(1, 1000), repeat=1))

    assert "1 M parameters (4 MB)" in shown
    assert shown.splitlines()[2].split()[-1] == "params"
    assert shown.splitlines()[3].endswith("4 kB     1 M")


@pytest.mark.parametrize("size", [2, 2000])
def test_flops_are_shown_in_the_unit_that_fits(size):
    shown = repr(hookline.profile(nn.Linear(size, size), torch.ones(1, size), backward=False, repeat=1))

    assert {2: " 8 ", 2000: " 8 M "}[size] in shown.splitlines()[3]


def test_what_has_no_formula_is_listed_with_its_module():
    class Far(nn.Module):
        def forward(self, x, y):
            return torch.cdist(x, y)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.pair, self.far = nn.Linear(4, 4), nn.Bilinear(4, 4, 2), Far()

        def forward(self, x):
            x = self.first(x)
            return self.far(x, x[:2]).sum() + self.pair(x, x).sum()

    found = hookline.profile(Both(), torch.ones(3, 4), repeat=1)

    assert "aten._cdist_forward" in found.uncounted
    assert "aten._trilinear" in found.uncounted
    assert "in pair, far" in found.uncounted or "in far, pair" in found.uncounted
    assert (found["first"].uncounted, found["pair"].uncounted > 0, found[""].uncounted_self) == (0, True, 0)
    assert found[""].uncounted == found["pair"].uncounted + found["far"].uncounted
    assert "not counted in the FLOPs: no formula for " in repr(found)


def test_where_all_has_a_formula_nothing_is_uncounted():
    model = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.GELU(), nn.Upsample(scale_factor=2))
    found = hookline.profile(model, torch.ones(2, 2, 6, 6), repeat=1)

    assert (found.uncounted, found.total.uncounted) == ("", 0)


def test_times_of_a_busy_machine_add_up_and_it_is_told(monkeypatch):
    from hookline.profiling.profiled import Profile

    found = hookline.profile(network(), torch.ones(8, 16), repeat=5)
    of_all = Profile(found, model="M", device="cpu", repeat=5, backward=True, steps=[0.03, 0.031, 0.05, 0.08, 0.09])

    assert "the machine was busy: steps took from 30.0 to 90.0 ms" in repr(of_all)
    assert sum(cost.seconds_self for cost in found) == pytest.approx(found.total.seconds)
