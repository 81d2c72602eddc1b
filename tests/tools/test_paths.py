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


# The user's own hooks


class Inner(nn.Module):
    """A model that holds another, which was hooked before."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x)


def nothing(call: hookline.Call) -> None:
    """A hook that does nothing."""


PHASES = ["before", "after", "always", "backward_before", "backward"]


@pytest.mark.parametrize("phase", PHASES)
def test_a_hook_sees_paths_under_its_own_model(phase: str) -> None:
    model, seen = Inner(), []
    with (
        hookline.on(model.encoder, "**", before=nothing),
        hookline.on(model, "encoder.0", **{phase: lambda call: seen.append((call.path, call.parent.path))}),
    ):
        model(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert seen == [("encoder.0", "encoder")]


def test_the_earlier_hook_keeps_its_paths() -> None:
    model, seen = Inner(), []
    with (
        hookline.on(model.encoder, "**", before=lambda call: seen.append(call.path)),
        hookline.on(model, "**", before=nothing),
    ):
        model(torch.ones(1, 2))
    assert seen == ["", "0", "1"]


def test_paths_stay_right_after_the_earlier_hook_is_removed() -> None:
    model, seen = Inner(), []
    earlier = hookline.on(model.encoder, "**", before=nothing)
    with hookline.on(model, "**", before=lambda call: seen.append(call.path)):
        earlier.remove()
        model(torch.ones(1, 2))
    assert seen == ["", "encoder", "encoder.0", "encoder.1"]


def test_the_condition_of_an_edit_sees_paths_under_its_own_model() -> None:
    model = Inner()
    x = torch.ones(1, 2)
    with (
        hookline.on(model.encoder, "**", before=nothing),
        hookline.edit(model, "encoder.0", output=hookline.edits.zero(), when=lambda call: call.path == "encoder.0"),
    ):
        assert model(x).abs().sum() == 0


def test_an_error_names_the_hook_that_raised_by_its_own_model() -> None:
    def fail(call: hookline.Call) -> None:
        raise KeyError(call.path)

    model = Inner()
    with hookline.on(model.encoder, "**", before=nothing), hookline.on(model, "encoder.0", before=fail):
        with pytest.raises(KeyError, match="encoder.0") as caught:
            model(torch.ones(1, 2))
    assert "in encoder.0 (Linear, call 0)" in caught.value.__notes__[0]


@pytest.mark.graph
def test_compiled_hooks_see_paths_under_their_own_model() -> None:
    model, seen = Inner(), []
    with (
        hookline.on(model.encoder, "**", before=nothing),
        hookline.on(model, "encoder.0", before=lambda call: seen.append(call.path), compiled="callback"),
    ):
        torch.compile(model, backend="eager")(torch.ones(1, 2))
    assert seen == ["encoder.0"]


@pytest.mark.graph
@pytest.mark.parametrize("earlier", [False, True])
def test_hooks_traced_into_a_graph_see_paths_under_their_own_model(earlier: bool) -> None:
    def replace(call: hookline.Call) -> None:
        if call.path == "encoder.0":
            call.output = call.output * 0 + 7

    model = Inner()
    if earlier:
        hookline.on(model.encoder, "**", before=nothing)
    with hookline.on(model, "encoder.0", after=replace):
        given = torch.compile(model, backend="eager", fullgraph=True)(torch.ones(1, 2))
    assert torch.equal(given, torch.full((1, 2), 7.0))
