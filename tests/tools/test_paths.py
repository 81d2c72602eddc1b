"""Tools name modules by their paths under the model they were given, whatever holds that model and is hooked too."""

import pytest
import torch
from torch import nn

import hookline
from hookline import edits

X = torch.ones(2, 3)


@pytest.fixture
def held():
    """A model inside a holder that is hooked before."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Linear(3, 2))
    holder = nn.ModuleDict({"net": net})
    with hookline.on(holder, "**", before=lambda call: None):
        yield net


def plain_of(net):
    twin = nn.Sequential(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), nn.Linear(3, 2))
    twin.load_state_dict(net.state_dict())
    return twin


def test_watch_records_its_own_paths(held):
    with hookline.watch(held) as run:
        held(X)
    assert [call.path for call in run] == ["", "0", "0.0", "0.1", "1"]


def test_stop_after_finds_its_own_paths(held):
    with hookline.stop_after(held, "0.0"):
        assert set(held(X)) == {"0.0"}


def test_sweep_measures_every_place(held):
    def sweep(model):
        return hookline.sweep(model, "0.*", edits.zero(), lambda output, batch: output.sum(), [X])

    assert [cell.path for cell in sweep(held)] == ["0.0", "0.1"]


def test_patch_finds_the_recorded_call(held):
    with hookline.watch(held, keep="copy") as run:
        held(X)
    with hookline.edit(held, "0.0", output=edits.patch(run)):
        patched = held(2 * X)
    assert torch.equal(patched, held(X))


def test_noise_is_that_of_the_path(held):
    def noisy(model):
        with hookline.edit(model, "0.0", output=edits.noise(0.1, seed=0)):
            return model(X)

    assert torch.equal(noisy(held), noisy(plain_of(held)))


def test_profile_reports_its_own_paths(held):
    profile = hookline.profile(held, X)
    assert {cost.path for cost in profile} == {"", "0", "0.0", "0.1", "1"}


def test_guard_names_its_own_path(held):
    held[1].weight.data[:] = float("nan")
    with pytest.raises(Exception, match=r"\b1 \(Linear"), hookline.guard(held):
        held(X)


def test_an_error_names_the_path_under_the_model_hooked_last(held):
    with pytest.raises(RuntimeError) as raised, hookline.explain(held):
        held(torch.ones(2, 4))
    assert "in 0.0 (Linear" in raised.value.__notes__[0]


def test_a_module_deleted_while_it_is_watched_is_freed():
    import gc
    import weakref

    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with hookline.watch(model):
        model(X)
        deleted = weakref.ref(model[1])
        del model[1]
        gc.collect()
        assert deleted() is None
