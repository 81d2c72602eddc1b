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
