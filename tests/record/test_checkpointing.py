"""Activation checkpointing: what a backward pass calls again is recorded and labelled, and changes nothing."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

import hookline

KINDS = {
    "reentrant": {"use_reentrant": True},
    "not reentrant": {"use_reentrant": False},
    "whole": {"use_reentrant": False, "early_stop": False},
}
each_kind = pytest.mark.parametrize("kind", KINDS)


class Net(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options
        self.first = nn.Linear(4, 4)
        self.block = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 4), nn.ReLU())

    def forward(self, x):
        return checkpoint(self.block, self.first(x), **self.options)


def trained(kind, *, watch):
    """Gradients of one training step, and the run."""
    torch.manual_seed(0)
    options = dict(KINDS[kind])
    model = Net(use_reentrant=options["use_reentrant"])
    x = torch.randn(5, 4, requires_grad=True)
    with set_checkpoint_early_stop(options.get("early_stop", True)):
        if not watch:
            model(x).square().sum().backward()
            run = None
        else:
            with hookline.watch(model, grads=True) as run:
                model(x).square().sum().backward()
    return [x.grad, *(parameter.grad for parameter in model.parameters())], run


@each_kind
def test_gradients_are_bit_for_bit_those_without_a_watch(kind):
    for one, other in zip(trained(kind, watch=True)[0], trained(kind, watch=False)[0], strict=True):
        assert torch.equal(one, other)


@each_kind
def test_calls_of_the_recomputation_are_labelled(kind):
    _, run = trained(kind, watch=True)
    assert [(call.path, call.index) for call in run if call.recompute][:2] == [("block", 1), ("block.0", 1)]
    assert not any(call.recompute for call in run if call.index == 0)


@each_kind
def test_what_is_not_checkpointed_is_called_once(kind):
    _, run = trained(kind, watch=True)
    assert [call.recompute for call in run.calls_of("first")] == [False]


@each_kind
def test_every_call_ends(kind):
    _, run = trained(kind, watch=True)
    assert all(call.seconds > 0 for call in run)
    assert not any(call.error for call in run)
    assert [call.parent.path for call in run.calls_of("block.0")] == ["block", "block"]


def test_a_recomputation_that_stops_early_has_no_output_where_it_stopped():
    _, run = trained("not reentrant", watch=True)
    assert (run["block", 1].recompute, run["block", 1].output, run["block", 1].error) == (True, None, None)


def test_one_that_is_whole_gives_what_the_first_gave():
    _, run = trained("whole", watch=True)
    assert run["block", 1].output.stats == run["block", 0].output.stats


@pytest.mark.parametrize("kind", ["not reentrant", "whole"])
def test_the_gradients_of_outputs_are_told_where_they_arrive(kind):
    _, run = trained(kind, watch=True)
    assert run["block", 0].output.grad.norm > 0


def test_where_it_is_reentrant_they_arrive_in_the_recomputation():
    _, run = trained("reentrant", watch=True)
    assert run["block.0", 0].output.grad is None
    assert run["block.0", 1].output.grad.norm > 0


@each_kind
def test_the_label_is_saved(kind, tmp_path):
    _, run = trained(kind, watch=True)
    run.save(tmp_path / "run")
    assert [call.recompute for call in hookline.load(tmp_path / "run")] == [call.recompute for call in run]


@each_kind
def test_the_table_shows_it(kind):
    _, run = trained(kind, watch=True)
    assert "block #1 recomputed" in repr(run)


def test_the_data_frame_shows_it():
    pytest.importorskip("pandas")
    _, run = trained("whole", watch=True)
    assert run.to_pandas()["recompute"].tolist() == [call.recompute for call in run]


def test_a_guard_tells_it_too():
    model = Net(use_reentrant=False)
    model.block.append(Poisoned())
    x = torch.randn(2, 4, requires_grad=True)
    errors = []
    with hookline.guard(model, then=errors.append):
        model(x).sum().backward()
    assert {call.recompute for call in errors[0].run} == {False}


class Poisoned(nn.Module):
    def forward(self, x):
        return x / 0 * 0


def test_checkpoints_inside_of_checkpoints_are_labelled():
    inner = Net(use_reentrant=False)
    x = torch.randn(2, 4, requires_grad=True)
    with hookline.watch(inner) as run:
        checkpoint(inner, x, use_reentrant=False).sum().backward()
    assert [call.recompute for call in run.calls_of("first")] == [False, True]
    assert [call.recompute for call in run.calls_of("block")][:2] == [False, True]
    assert all(call.recompute for call in run.calls_of("block")[1:])
