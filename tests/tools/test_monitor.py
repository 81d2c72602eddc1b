"""Tests of monitor: what is measured, when, and that training does not change."""

import copy
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hookline
from hookline import AlertError, ArgumentError, StoreError, alerts, writers
from hookline.testing import assert_unhooked
from tests.monitoring.conftest import batches, train


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


@pytest.fixture
def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)


def steps_of(monitor: hookline.Monitor, path: str = "0", of: str = "output") -> list[int]:
    return monitor.series(path, of, "rms").steps[:, 0].tolist()


# Training does not change


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_losses_and_weights_are_those_without_it(model: nn.Module, kind: Any) -> None:
    other = copy.deepcopy(model)
    one, two = (kind(each.parameters(), lr=0.01) for each in (model, other))
    with hookline.monitor(model, one, every=1, of=("output", "grad", "weight", "weight_grad", "update", "state")):
        losses = train(model, one, 12)
    assert losses == train(other, two, 12)
    assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_nothing_is_attached_between_samples(model: nn.Module, optimizer: Any) -> None:
    monitor = hookline.monitor(model, optimizer, every=100)
    train(model, optimizer, 12)
    assert_unhooked(model)
    monitor.stop()


def test_stop_removes_everything(model: nn.Module, optimizer: Any) -> None:
    hookline.monitor(model, optimizer, every=1).stop()
    assert_unhooked(model)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_error_in_a_step_leaves_the_monitor_whole(model: nn.Module, optimizer: Any) -> None:
    with hookline.monitor(model, optimizer, every=1) as monitor:
        with pytest.raises(RuntimeError):
            model(torch.ones(3, 5))
        train(model, optimizer, 2)
    assert steps_of(monitor) == [0, 1]
    assert_unhooked(model)


# Steps


def test_first_ten_steps_and_every_fifth_are_sampled(model: nn.Module, optimizer: Any) -> None:
    with hookline.monitor(model, optimizer, every=5) as monitor:
        train(model, optimizer, 23)
    assert steps_of(monitor) == [*range(10), 10, 15, 20]


def test_steps_may_be_chosen_by_a_function(model: nn.Module, optimizer: Any) -> None:
    with hookline.monitor(model, optimizer, every=lambda step: step in (12, 17)) as monitor:
        train(model, optimizer, 20)
    assert steps_of(monitor)[10:] == [12, 17]


def test_microbatches_are_added_up(model: nn.Module, optimizer: Any) -> None:
    first, second = batches(2)
    with hookline.monitor(model, optimizer, every=1) as monitor:
        for x in (first, second):
            model(x).square().mean().backward()
        outputs = torch.cat([first, second]) @ model[0].weight.t() + model[0].bias
        expected = outputs.square().mean().sqrt().item()
        optimizer.step()
    assert monitor.series("0", "output", "rms").last == pytest.approx(expected, rel=1e-6)
    assert monitor.steps == 1


def test_steps_of_the_first_optimizer_count(model: nn.Module) -> None:
    first, second = (torch.optim.SGD(model[place].parameters(), lr=0.1) for place in (0, 2))
    with hookline.monitor(model, [first, second], every=1) as monitor:
        for x in batches(3):
            model(x).mean().backward()
            second.step()
            first.step()
    assert monitor.steps == 3
    assert steps_of(monitor, "2.weight", "update") == steps_of(monitor, "0.weight", "update") == [0, 1, 2]


def test_loop_without_an_optimizer_ends_steps_itself(model: nn.Module) -> None:
    with hookline.monitor(model) as monitor:
        for x in batches(2):
            model(x)
            monitor.step()
    assert steps_of(monitor) == [0, 1]


def test_calls_without_gradients_are_left_out(model: nn.Module, optimizer: Any) -> None:
    with hookline.monitor(model, optimizer, of="output") as monitor:
        train(model, optimizer, 1)
        with torch.no_grad():
            model(torch.full((1, 4), 1e6))
        train(model, optimizer, 1)
    assert float(monitor.series("0").high.max()) < 1e3


def test_recomputed_calls_are_counted_once(optimizer: Any) -> None:
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> Any:
            return checkpoint(self.inner, x, use_reentrant=False)

    model = Checkpointed()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with hookline.monitor(model, optimizer, figures="norm") as monitor:
        x = torch.randn(2, 4)
        output = model(x)
        output.sum().backward()
        optimizer.step()
    assert monitor.series("inner", "output", "norm").last == pytest.approx(output.norm().item(), rel=1e-6)


# Figures


def test_figures_are_those_of_the_tensors(model: nn.Module, optimizer: Any) -> None:
    (x,) = batches(1)
    with hookline.monitor(model, optimizer, figures=("rms", "absmax", "zeros")) as monitor:
        hidden = model[1](model[0](x))
        hidden.retain_grad()
        loss = model[2](hidden).square().mean()
        before = copy.deepcopy(model.state_dict())
        loss.backward()
        gradient = model[0].weight.grad.clone()
        optimizer.step()
    change = model[0].weight.detach() - before["0.weight"]

    def rms(values: torch.Tensor) -> Any:
        return pytest.approx(values.square().mean().sqrt().item(), rel=1e-5)

    assert monitor.series("1", "output", "rms").last == rms(hidden.detach())
    assert monitor.series("1", "output", "absmax").last == pytest.approx(hidden.abs().max().item())
    assert monitor.series("1", "output", "zeros").last == pytest.approx((hidden == 0).float().mean().item())
    assert monitor.series("1", "grad", "rms").last == rms(hidden.grad)
    assert monitor.series("0.weight", "weight", "rms").last == rms(before["0.weight"])
    assert monitor.series("0.weight", "weight_grad", "rms").last == rms(gradient)
    assert monitor.series("0.weight", "update", "rms").last == rms(change)
    ratio = (change.norm() / before["0.weight"].norm()).item()
    assert monitor.series("0.weight", "update", "ratio").last == pytest.approx(ratio, rel=1e-5)


def test_state_of_the_optimizer_is_measured(model: nn.Module) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with hookline.monitor(model, optimizer, of="state") as monitor:
        train(model, optimizer, 2)
    state = optimizer.state[model[0].weight]["exp_avg_sq"]
    expected = state.square().mean().sqrt().item()
    assert monitor.series("0.weight", "state.exp_avg_sq").last == pytest.approx(expected, rel=1e-5)


def test_only_selected_modules_are_measured(model: nn.Module, optimizer: Any) -> None:
    with hookline.monitor(model, optimizer, "2") as monitor:
        train(model, optimizer, 1)
    assert monitor.paths == ["2", "2.weight", "2.bias"]


def test_module_that_is_not_called_has_no_points(optimizer: Any) -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with hookline.monitor(model, optimizer) as monitor:
        model["a"](torch.ones(2, 4)).sum().backward()
        optimizer.step()
    assert len(monitor.series("b", "output", "rms")) == 0
    assert len(monitor.series("a", "output", "rms")) == 1


def test_shared_weight_is_measured_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with hookline.monitor(model, optimizer, of="weight", figures="norm") as monitor:
        model(torch.ones(1, 4)).sum().backward()
        expected = model[0].weight.norm().item()
        optimizer.step()
    assert monitor.series("0.weight", "weight", "norm").last == pytest.approx(expected, rel=1e-6)
    assert "1.weight" not in monitor


def test_loss_scaler_leaves_gradients_of_weights_unscaled(model: nn.Module, optimizer: Any) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    (x,) = batches(1)
    expected = torch.autograd.grad(model(x).square().mean(), model[0].weight)[0].norm().item()
    with hookline.monitor(model, optimizer, figures="norm") as monitor:
        scaler.scale(model(x).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert monitor.series("0.weight", "weight_grad", "norm").last == pytest.approx(expected, rel=1e-5)


# Results


def test_series_that_is_not_measured_names_what_is(model: nn.Module, optimizer: Any) -> None:
    with hookline.monitor(model, optimizer, of="output") as monitor:
        train(model, optimizer, 1)
    with pytest.raises(
        ArgumentError, match="no series of the kurtosis of its output; it has output rms, output absmax"
    ):
        monitor.series("0", "output", "kurtosis")


def test_unknown_path_names_the_nearest(model: nn.Module, optimizer: Any) -> None:
    with hookline.monitor(model, optimizer) as monitor:
        train(model, optimizer, 1)
    with pytest.raises(hookline.RecordError, match=r"nearest: 0\.weight"):
        monitor.series("0.weights")


def test_saved_monitor_is_the_same(model: nn.Module, optimizer: Any, tmp_path: Path) -> None:
    with hookline.monitor(model, optimizer, every=1, alert=alerts.exploding(limit=1e-3)) as monitor:
        train(model, optimizer, 15)
    monitor.save(tmp_path / "saved")
    found = hookline.load(tmp_path / "saved")
    assert found.to_json() == monitor.to_json()
    assert repr(found) == repr(monitor)


def test_folder_is_read_while_it_is_written(model: nn.Module, optimizer: Any, tmp_path: Path) -> None:
    with hookline.monitor(model, optimizer, every=1, to=tmp_path / "run") as monitor:
        train(model, optimizer, 15)
        found = hookline.load(tmp_path / "run")
    assert found.to_dict()["series"] == monitor.to_dict()["series"]


def test_data_frame_has_a_row_for_each_point(model: nn.Module, optimizer: Any) -> None:
    pytest.importorskip("pandas")
    with hookline.monitor(model, optimizer, "0", of="output", figures="rms") as monitor:
        train(model, optimizer, 3)
    frame = monitor.to_pandas()
    assert frame["step"].tolist() == [0, 1, 2]
    assert frame["mean"].tolist() == monitor.series("0").mean.tolist()


def test_around_names_where_a_spike_began(model: nn.Module, optimizer: Any, tmp_path: Path) -> None:
    def spike(step: int, x: torch.Tensor) -> torch.Tensor:
        return x * 1000 if step == 25 else x

    with hookline.monitor(model, optimizer, ["0", "1", "2"], every=1, of="output", to=tmp_path / "run") as monitor:
        train(model, optimizer, 30, change=spike)
    first = monitor.around(25)[0]
    assert (first.step, first.figure) == (25, "absmax")
    assert first.factor > 100
    assert hookline.load(tmp_path / "run").around(25) == monitor.around(25)


def test_around_a_step_after_the_last_is_an_error(model: nn.Module, optimizer: Any) -> None:
    with hookline.monitor(model, optimizer) as monitor:
        train(model, optimizer, 3)
    with pytest.raises(ArgumentError, match="no sample at step 7 or after; the last one is of step 2"):
        monitor.around(7)


# A run that goes on


def test_resumed_run_has_each_step_once(model: nn.Module, optimizer: Any, tmp_path: Path) -> None:
    whole = copy.deepcopy(model)
    undisturbed = torch.optim.SGD(whole.parameters(), lr=0.01, momentum=0.9)
    with hookline.monitor(whole, undisturbed, every=1) as monitor:
        train(whole, undisturbed, 20)
    first = hookline.monitor(model, optimizer, every=1, to=tmp_path / "run")
    train(model, optimizer, 12)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), first.state_dict()))
    train(model, optimizer, 5, begin=12)  # which the checkpoint does not have
    first.stop()
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    second = hookline.monitor(model, optimizer, every=1, to=tmp_path / "run")
    second.load_state_dict(saved[2])
    train(model, optimizer, 8, begin=12)
    second.stop()
    assert hookline.load(tmp_path / "run").to_dict()["series"] == monitor.to_dict()["series"]
    assert second.to_dict()["series"] == monitor.to_dict()["series"]


def test_folder_of_another_run_is_not_overwritten(model: nn.Module, optimizer: Any, tmp_path: Path) -> None:
    with hookline.monitor(model, optimizer, to=tmp_path / "run"):
        train(model, optimizer, 3)
    with (
        hookline.monitor(model, optimizer, to=tmp_path / "run"),
        pytest.raises(StoreError, match="holds a run already"),
    ):
        train(model, optimizer, 1)
    assert steps_of(hookline.load(tmp_path / "run")) == [0, 1, 2]


# Writers


def test_writer_receives_step_and_figures(model: nn.Module, optimizer: Any) -> None:
    seen: list[Any] = []
    with hookline.monitor(
        model, optimizer, "0", of="output", to=lambda step, told: seen.append((step, told))
    ) as monitor:
        train(model, optimizer, 2)
    assert [step for step, _ in seen] == [0, 1]
    assert seen[1][1]["0/output/rms"] == pytest.approx(monitor.series("0").last)


def test_failing_writer_warns_once_and_training_goes_on(model: nn.Module, optimizer: Any) -> None:
    def broken(step: int, told: Any) -> None:
        raise OSError("disk full")

    with (
        hookline.monitor(model, optimizer, to=broken) as monitor,
        pytest.warns(UserWarning, match="disk full") as warned,
    ):
        train(model, optimizer, 4)
    assert len(warned) == 1
    assert monitor.samples == 4


class Board:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.told.append((name, step))

    def log(self, told: dict[str, float]) -> None:
        self.told.append(told)

    def log_metrics(self, told: dict[str, float], step: int) -> None:
        self.told.append((told, step))


def test_tensorboard_receives_like_layers_together(optimizer: Any) -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(5)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    board = Board()
    to = writers.tensorboard(board)
    with hookline.monitor(model, optimizer, ["0", "1", "2"], of="output", figures="rms", to=to):
        train(model, optimizer, 1)
    assert board.told == [("hookline/*/output/rms", 0)]


def test_wandb_receives_the_step_as_a_figure(model: nn.Module, optimizer: Any) -> None:
    board = Board()
    with hookline.monitor(model, optimizer, "0", of="output", figures="rms", to=writers.wandb(board, all=True)):
        train(model, optimizer, 2)
    assert [told["hookline/step"] for told in board.told] == [0, 1]
    assert {*board.told[0]} == {"hookline/step", "hookline/0/output/rms"}


def test_mlflow_receives_names_that_it_takes(model: nn.Module, optimizer: Any) -> None:
    board = Board()
    with hookline.monitor(model, optimizer, "0", of="output", figures="rms", to=writers.mlflow(board)):
        train(model, optimizer, 1)
    assert [*board.told[0][0]] == ["hookline/all/output/rms"]


def test_writer_for_the_wrong_thing_is_refused() -> None:
    with pytest.raises(TypeError, match="a SummaryWriter is needed, with a method add_scalar"):
        writers.tensorboard(3)


# Alerts


def test_alert_names_step_and_layer(model: nn.Module, optimizer: Any, caplog: Any) -> None:
    def spike(step: int, x: torch.Tensor) -> torch.Tensor:
        return x * 1000 if step == 25 else x

    alert = alerts.jump("rms", 10)
    with caplog.at_level(logging.WARNING), hookline.monitor(model, optimizer, every=1, alert=alert) as monitor:
        train(model, optimizer, 30, change=spike)
    (found,) = monitor.alerts[:1]
    assert (found.path, found.evidence["step"], found.rule) == ("0", 25, "jump")
    assert "output rms jumped at step 25" in caplog.text


def test_alert_that_lasts_is_reported_once(model: nn.Module, optimizer: Any) -> None:
    found: list[Any] = []
    with hookline.monitor(model, optimizer, every=1, alert=alerts.exploding(limit=0.0), then=found.append):
        train(model, optimizer, 5)
    assert len(found) == 1


def test_alert_may_raise(model: nn.Module, optimizer: Any) -> None:
    with (
        hookline.monitor(model, optimizer, alert=alerts.exploding(limit=0.0), then="raise"),
        pytest.raises(AlertError, match="explodes at step 0"),
    ):
        train(model, optimizer, 1)
    assert_unhooked(model)


def test_run_of_the_step_after_an_alert_is_saved(model: nn.Module, optimizer: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    alert = alerts.exploding(limit=0.0)
    with hookline.monitor(model, optimizer, alert=alert, then=lambda finding: None, save=folder):
        train(model, optimizer, 3)
    assert [call.path for call in hookline.load(folder)] == ["", "0", "1", "2"]
    assert_unhooked(model)


def test_dead_layer_is_found(optimizer: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    nn.init.constant_(model[0].bias, -1e3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with hookline.monitor(model, optimizer, alert=alerts.dead(), then=lambda finding: None) as monitor:
        train(model, optimizer, 5)
    assert (monitor.alerts[0].path, monitor.alerts[0].evidence["step"]) == ("1", 2)


def test_large_update_is_found(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=100.0)
    with hookline.monitor(model, optimizer, alert=alerts.update_ratio(), then=lambda finding: None) as monitor:
        train(model, optimizer, 1)
    assert monitor.alerts[0].rule == "update-ratio"


def test_nan_is_found(model: nn.Module, optimizer: Any) -> None:
    def broken(step: int, x: torch.Tensor) -> torch.Tensor:
        return x * math.nan if step == 3 else x

    with hookline.monitor(model, optimizer, alert=alerts.nonfinite(), then=lambda finding: None) as monitor:
        train(model, optimizer, 5, change=broken)
    assert (monitor.alerts[0].path, monitor.alerts[0].evidence["step"]) == ("0", 3)


def test_drift_is_found(model: nn.Module, optimizer: Any) -> None:
    def grow(step: int, x: torch.Tensor) -> torch.Tensor:
        return x * 10 if step > 20 else x

    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    alert = alerts.drift("rms", 4, of=("output",))
    with hookline.monitor(model, optimizer, every=1, alert=alert, then=lambda finding: None) as monitor:
        train(model, optimizer, 30, change=grow)
    assert (monitor.alerts[0].path, monitor.alerts[0].evidence["step"]) == ("0", 25)


def test_update_ratio_needs_weights_and_updates(model: nn.Module, optimizer: Any) -> None:
    with pytest.raises(ArgumentError, match="needs of= with 'weight' and 'update'"):
        hookline.monitor(model, optimizer, of="output", alert=alerts.update_ratio())


# The recorder


def test_recorder_holds_the_last_steps(model: nn.Module, optimizer: Any) -> None:
    with hookline.monitor(model, optimizer, every=100, recorder=4) as monitor:
        train(model, optimizer, 37)
        recent = monitor.recent()
    assert steps_of(recent) == [33, 34, 35, 36]
    assert steps_of(monitor) == [*range(10)]


def test_recorder_is_there_after_an_exception(model: nn.Module, optimizer: Any) -> None:
    with pytest.raises(RuntimeError), hookline.monitor(model, optimizer, every=100, recorder=4) as monitor:
        train(model, optimizer, 20)
        model(torch.ones(3, 7))
    assert steps_of(monitor.recent()) == [16, 17, 18, 19]


# Compiled


@pytest.mark.graph
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # inductor imports it
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_compiled_model_has_the_same_figures(model: nn.Module, optimizer: Any, backend: str) -> None:
    plain = copy.deepcopy(model)
    other = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9)
    with hookline.monitor(model, optimizer, every=5) as monitor:
        losses = train(torch.compile(model, backend=backend), optimizer, 13)
    with hookline.monitor(plain, other, every=5) as expected:
        assert losses == pytest.approx(train(plain, other, 13), rel=1e-5)
    for each in expected:
        found = monitor.series(each.path, each.of, each.figure)
        assert found.steps.tolist() == each.steps.tolist()
        torch.testing.assert_close(found.mean, each.mean, rtol=1e-4, atol=1e-7)


@pytest.mark.graph
def test_cadence_makes_no_recompile(model: nn.Module, optimizer: Any) -> None:
    torch._dynamo.reset()
    counts = []
    with hookline.monitor(model, optimizer, every=5):
        compiled = torch.compile(model, backend="eager")
        for number in range(4):
            train(compiled, optimizer, 6, begin=6 * number)
            counts.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert counts == [counts[0]] * 4


# Arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "weights"}, "of must be 'output'"),
        ({"figures": "mode"}, "figures must be 'mean'"),
        ({"of": ()}, "of= must name something"),
        ({"every": 0}, "every must be a whole number from 1"),
        ({"recorder": -1}, "recorder must be 0 or more"),
        ({"then": "stop"}, "then must be 'log', 'raise' or a function"),
        ({"to": [3]}, "to= takes folders and functions"),
        ({"to": ["a", "b"]}, "to= takes one folder, not 2"),
        ({"alert": [3]}, "alert must be a rule"),
        ({"alert": alerts.jump("mode")}, "figure must be 'mean'"),
    ],
    ids=str,
)
def test_wrong_argument_is_refused(model: nn.Module, optimizer: Any, options: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        hookline.monitor(model, optimizer, **options)
    assert_unhooked(model)


def test_optimizer_must_be_one(model: nn.Module) -> None:
    with pytest.raises(TypeError, match=r"optimizer must be an optimizer of torch\.optim"):
        hookline.monitor(model, [3])


def test_where_that_picks_nothing_is_refused(model: nn.Module, optimizer: Any) -> None:
    with pytest.raises(hookline.SelectionError):
        hookline.monitor(model, optimizer, "encoder")


# Figures of one's own


def largest_row(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(len(values), -1).norm(dim=1).max()


def test_function_is_a_figure(model: nn.Module, optimizer: Any) -> None:
    (x,) = batches(1)
    with hookline.monitor(model, optimizer, figures=("rms", largest_row)) as monitor:
        output = model[0](x)
        model[2](model[1](output)).mean().backward()
        optimizer.step()
    expected = output.norm(dim=1).max().item()
    assert monitor.series("0", "output", "largest_row").last == pytest.approx(expected, rel=1e-6)


def test_function_is_averaged_over_the_tensors_of_a_step(model: nn.Module, optimizer: Any) -> None:
    with hookline.monitor(model, optimizer, "0", of="output", figures=largest_row) as monitor:
        values = [model[0](x) for x in batches(3)]
        monitor.step()
    expected = sum(value.norm(dim=1).max().item() for value in values) / 3
    assert monitor.series("0", "output", "largest_row").last == pytest.approx(expected, rel=1e-6)


def test_function_sees_updates_as_differences(model: nn.Module, optimizer: Any) -> None:
    before = model[0].weight.detach().clone()
    with hookline.monitor(model, optimizer, of="update", figures=largest_row) as monitor:
        train(model, optimizer, 1)
    expected = (model[0].weight.detach() - before).norm(dim=1).max().item()
    assert monitor.series("0.weight", "update", "largest_row").last == pytest.approx(expected, rel=1e-5)


def test_alert_may_look_at_a_function(model: nn.Module, optimizer: Any) -> None:
    alert = alerts.exploding("largest_row", limit=0.0)
    with hookline.monitor(model, optimizer, figures=largest_row, alert=alert, then=lambda finding: None) as monitor:
        train(model, optimizer, 1)
    assert monitor.alerts[0].evidence["figure"] == "largest_row"


def test_functions_of_one_name_are_refused(model: nn.Module, optimizer: Any) -> None:
    with pytest.raises(ArgumentError, match="needs a name of its own"):
        hookline.monitor(model, optimizer, figures=(lambda x: x.max(), lambda x: x.min()))


# What led up to it


def test_recorder_is_saved_at_an_alert(model: nn.Module, optimizer: Any, tmp_path: Path) -> None:
    def spike(step: int, x: torch.Tensor) -> torch.Tensor:
        return x * 1000 if step == 20 else x

    options: Any = {"every": 5, "alert": alerts.jump(), "then": lambda finding: None, "to": tmp_path, "recorder": 4}
    with hookline.monitor(model, optimizer, **options):
        train(model, optimizer, 22, change=spike)
    assert steps_of(hookline.load(tmp_path / "recent-000000000020")) == [17, 18, 19, 20]


def test_recorder_is_saved_where_an_exception_leaves(model: nn.Module, optimizer: Any, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), hookline.monitor(model, optimizer, to=tmp_path, recorder=3):
        train(model, optimizer, 13)
        model(torch.ones(3, 7))
    assert steps_of(hookline.load(tmp_path / "recent-000000000012")) == [10, 11, 12]


def test_weights_of_an_adapter_alone_are_measured(model: nn.Module) -> None:
    class Adapter(nn.Module):
        def __init__(self, base: nn.Linear) -> None:
            super().__init__()
            self.base, self.down, self.up = base.requires_grad_(False), nn.Linear(4, 2, bias=False), nn.Linear(2, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.base(x) + self.up(self.down(x))

    model[0] = Adapter(model[0])
    model[2].requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    with hookline.monitor(model, optimizer) as monitor:
        train(model, optimizer, 2)
    assert len(monitor.series("0.down.weight", "update", "ratio")) == 2
    assert len(monitor.series("0.base.weight", "update", "rms")) == 0
    assert len(monitor.series("0.base", "output", "rms")) == 2
