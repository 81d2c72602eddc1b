"""watch with start and stop, where no block fits."""

import pytest
import torch
from torch import nn

import hookline
from hookline.testing import assert_unhooked


def test_started_watch_records_until_it_is_stopped() -> None:
    model = nn.ReLU()
    watch = hookline.watch(model)
    run = watch.start()
    model(torch.ones(2))

    assert watch.stop() is run
    model(torch.ones(2))
    assert len(run) == 1
    assert_unhooked(model)


def test_stopping_twice_is_harmless() -> None:
    watch = hookline.watch(nn.ReLU())
    run = watch.start()

    assert watch.stop() is watch.stop() is run


def test_watch_is_started_once() -> None:
    watch = hookline.watch(nn.ReLU())
    with watch, pytest.raises(hookline.RecordError, match="started before"):
        watch.start()


def test_watch_that_was_not_started_cannot_be_stopped() -> None:
    with pytest.raises(hookline.RecordError, match="not started"):
        hookline.watch(nn.ReLU()).stop()


def test_a_started_watch_that_is_dropped_warns_and_leaves_no_hook() -> None:
    model = nn.ReLU()
    with pytest.warns(UserWarning, match="ended before stop"):
        run = hookline.watch(model).start()
    model(torch.ones(1))
    assert len(run) == 0
    assert_unhooked(model)


def test_a_watch_that_was_stopped_is_dropped_in_silence() -> None:
    watch = hookline.watch(nn.ReLU())
    watch.start()
    watch.stop()
    del watch


# The last calls alone


def last_run(count, last, **options):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    with hookline.watch(model, last=last, **options) as run:
        for number in range(count):
            model(torch.full((1 + number, 2), 1.0))
    return run


@pytest.mark.parametrize("last", [1, 2, 5])
def test_only_the_last_outermost_calls_are_kept(last):
    run = last_run(4, last)
    assert [call.output.shape[0] for call in run if call.path == ""] == [1, 2, 3, 4][-last:]
    assert len(run) == 3 * min(last, 4)


def test_calls_that_are_kept_are_numbered_from_0(tmp_path):
    run = last_run(5, 2)
    assert [call.number for call in run] == [*range(6)]
    assert [call.index for call in run if call.path == "1"] == [3, 4]
    run.save(tmp_path / "run")
    assert hookline.load(tmp_path / "run").to_json() == run.to_json()


def test_gradients_of_the_last_step_are_recorded():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    with hookline.watch(model, last=1, grads=True) as run:
        for scale in (1.0, 2.0):
            (scale * model(torch.ones(1, 2))).sum().backward()
    assert run[""].output.grad.max == 2.0


def test_last_must_be_a_number():
    with pytest.raises(ValueError, match="last must be a whole number from 1"):
        hookline.watch(torch.nn.ReLU(), last=0)


def repeated(count, model, x, **options):
    with hookline.watch(model, **options) as run:
        for _ in range(count):
            model(x)
    return run


def test_watch_that_grows_large_warns_once(monkeypatch):
    monkeypatch.setattr("hookline.record.recorder.MANY", 2048)
    with pytest.warns(UserWarning, match=r"has recorded 2,048 calls.*hookline\.monitor") as warned:
        repeated(5000, torch.nn.ReLU(), torch.ones(1), keep="shape")
    assert [each.filename for each in warned] == [__file__]


def test_watch_that_keeps_large_tensors_warns(monkeypatch):
    monkeypatch.setattr("hookline.record.recorder.LARGE", 3e6)
    with pytest.warns(UserWarning, match="about 3 MB"):
        repeated(1100, torch.nn.ReLU(), torch.ones(500), keep="copy")


def test_watch_of_the_last_calls_does_not_warn(monkeypatch):
    monkeypatch.setattr("hookline.record.recorder.MANY", 1024)
    assert len(repeated(3000, torch.nn.ReLU(), torch.ones(1), keep="shape", last=1)) == 1
