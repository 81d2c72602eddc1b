"""The inventory: every hook on a model is told, by whom it is, and can be taken off alone."""

import functools
import json

import accelerate.hooks
import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, parametrize

import hookline
from hookline.engine.hook_dicts import HOOK_DICTS


def nothing(*given, **named):
    """A hook that does nothing."""


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 2), nn.ReLU())


def told(model):
    return [(hook.path, hook.kind, hook.owner) for hook in hookline.hooks(model)]


def test_a_model_without_hooks_has_none(model):
    assert told(model) == []
    assert repr(hookline.hooks(model)) == "Sequential: no hooks"


REGISTRATIONS = {
    "forward pre": lambda module: module.register_forward_pre_hook(nothing),
    "forward": lambda module: module.register_forward_hook(nothing),
    "backward pre": lambda module: module.register_full_backward_pre_hook(nothing),
    "backward": lambda module: module.register_full_backward_hook(nothing),
    "backward (legacy)": lambda module: module.register_backward_hook(nothing),
    "state dict pre": lambda module: module.register_state_dict_pre_hook(nothing),
    "state dict": lambda module: module._register_state_dict_hook(nothing),
    "load state dict pre": lambda module: module.register_load_state_dict_pre_hook(nothing),
    "load state dict post": lambda module: module.register_load_state_dict_post_hook(nothing),
    "gradient of weight": lambda module: module.weight.register_hook(nothing),
    "accumulated gradient of weight": lambda module: module.weight.register_post_accumulate_grad_hook(nothing),
}


@pytest.mark.parametrize("kind", REGISTRATIONS)
@pytest.mark.parametrize("installed", [False, True], ids=["pytorch", "installed"])
def test_a_hook_of_pytorchs_api_is_told_and_taken_off(model, kind, installed):
    handle = hookline.install() if installed else None
    try:
        kept = REGISTRATIONS[kind](model[0])
        REGISTRATIONS[kind](model[0])
        first, second = hookline.hooks(model)
        assert (second.path, second.kind, second.owner, second.order, second.name) == (
            "0",
            kind,
            "PyTorch",
            1,
            "nothing",
        )
        assert second.defined.endswith(f"test_hooks.py:{nothing.__code__.co_firstlineno}")
        first.remove()
        first.remove()
        assert len(hookline.hooks(model)) == 1
        kept.remove()
        assert len(hookline.hooks(model)) == 1
        hookline.hooks(model)[0].remove()
        assert told(model) == []
    finally:
        if handle:
            handle.remove()


def test_what_a_hook_takes_is_told(model):
    model[0].register_forward_hook(nothing, with_kwargs=True, always_call=True)
    (hook,) = hookline.hooks(model)
    assert hook.flags == ("kwargs", "always")
    hook.remove()
    assert not any(model[0].__dict__[name] for name in HOOK_DICTS)


def test_a_global_hook_is_told_once(model):
    with register_module_forward_hook(nothing, always_call=True):
        assert told(model) == [("(every module)", "forward", "PyTorch")]
        hookline.hooks(model)[0].remove()
        assert told(model) == []


def test_own_hook_says_where_it_was_added_and_is_removed_alone(model):
    seen = []
    with hookline.on(model, "*", before=lambda call: seen.append(call.path), order=3):
        first, second = hookline.hooks(model)
        assert (first.path, first.kind, first.owner, first.order) == ("0", "before", "hookline", 3)
        assert "test_hooks.py" in first.added
        assert first.added == second.added
        second.remove()
        model(torch.ones(1, 2))
    assert seen == ["0"]
    assert type(model[1]) is nn.ReLU


def test_steps_of_an_open_block_are_told_and_cannot_be_taken_off(model):
    with hookline.everywhere(after=nothing):
        (hook,) = hookline.hooks(model)
        assert (hook.path, hook.kind, hook.owner) == ("(every module)", "after", "hookline")
        with pytest.raises(hookline.AttachError, match="cannot be removed"):
            hook.remove()


def test_accelerates_hook_is_told_and_taken_off(model):
    accelerate.hooks.add_hook_to_module(model[1], accelerate.hooks.ModelHook())
    assert told(model) == [("1", "forward replaced", "accelerate")]
    assert hookline.hooks(model)[0].name == "ModelHook"
    hookline.hooks(model)[0].remove()
    assert told(model) == []


def test_a_forward_that_was_replaced_is_told_and_put_back(model):
    model[1].forward = functools.partial(nothing, 1)
    (hook,) = hookline.hooks(model)
    assert (hook.kind, hook.name) == ("forward replaced", "nothing")
    hook.remove()
    assert torch.equal(model[1](torch.ones(1)), torch.ones(1))


def test_parametrization_is_removed_with_the_weight_it_made(model):
    parametrizations.orthogonal(model[0])
    weight = model[0].weight.detach().clone()
    (hook,) = [hook for hook in hookline.hooks(model) if hook.path == "0"]
    assert (hook.kind, hook.name) == ("parametrization", "_Orthogonal of weight")
    hook.remove()
    assert not parametrize.is_parametrized(model[0])
    torch.testing.assert_close(model[0].weight.detach(), weight)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_a_norm_is_told_and_taken_off_with_its_parameters(model, norm):
    norm(model[0])
    (hook,) = [hook for hook in hookline.hooks(model) if hook.kind == "forward pre"]
    assert hook.owner == norm.__name__.replace("_", " ")
    hook.remove()
    assert [name for name, _ in model[0].named_parameters()] == ["bias", "weight"]


def test_taking_a_norm_off_twice_is_harmless(model):
    nn.utils.spectral_norm(model[0])
    (hook,) = hookline.hooks(model)[:1]
    hook.remove()
    weight = model[0].weight
    hook.remove()
    assert model[0].weight is weight


def test_pruning_is_taken_off_with_the_weight_as_it_is_pruned(model):
    nn.utils.prune.l1_unstructured(model[0], "weight", amount=2)
    pruned = model[0].weight.detach().clone()
    (hook,) = hookline.hooks(model)
    assert hook.owner == "pruning"
    hook.remove()
    assert torch.equal(model[0].weight.detach(), pruned)
    assert isinstance(model[0].weight, nn.Parameter)


def test_what_a_lazy_module_needs_is_told_and_cannot_be_taken_off():
    model = nn.Sequential(nn.LazyLinear(2))
    found = hookline.hooks(model)
    assert len(found) > 0
    for hook in found:
        with pytest.raises(hookline.AttachError):
            hook.remove()
    assert model(torch.ones(1, 3)).shape == (1, 2)


def test_a_compiled_model_is_told_and_left_alone(model):
    found = hookline.hooks(torch.compile(model, backend="eager"))
    assert ("", "compiled", "torch.compile") in [(hook.path, hook.kind, hook.owner) for hook in found]


@pytest.mark.parametrize("make", [torch.jit.script, lambda model: nn.Sequential(torch.jit.script(model))])
def test_scripted_modules_are_looked_at(model, make):
    assert told(make(model)) == []


def test_a_hook_that_answers_to_any_name_is_told(model):
    class Anything:
        def __getattr__(self, name):
            return self

        def __call__(self, *given):
            return None

    model[0].register_forward_hook(Anything())
    (hook,) = hookline.hooks(model)
    assert hook.kind == "forward"


def test_what_compile_leaves_is_told_and_taken_off(model):
    model[1].compile(backend="eager")
    assert told(model) == [("1", "compiled call", "torch.compile")]
    hookline.hooks(model)[0].remove()
    assert model[1]._compiled_call_impl is None


def test_fsdps_classes_and_hooks_are_told_to_be_its_own(model):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        fully_shard(model[0], mesh=mesh)
        found = [hook for hook in hookline.hooks(model) if hook.path == "0"]
        assert {hook.owner for hook in found} == {"FSDP"}
        assert {hook.kind for hook in found} >= {"class", "forward pre", "forward"}
        with pytest.raises(hookline.AttachError, match=r"FSDPLinear on 0 \(FSDP\) cannot be removed"):
            next(hook for hook in found if hook.kind == "class").remove()
    finally:
        torch.distributed.destroy_process_group()


def test_looking_changes_nothing(model):
    model[0].register_forward_hook(nothing)
    before = [
        (type(module), [(name, id(value)) for name, value in module.__dict__.items()]) for module in model.modules()
    ]
    repr(hookline.hooks(model))
    after = [
        (type(module), [(name, id(value)) for name, value in module.__dict__.items()]) for module in model.modules()
    ]
    assert before == after


def test_the_table_has_a_row_for_each(model):
    model[0].register_forward_hook(nothing, with_kwargs=True)
    head, columns, row = repr(hookline.hooks(model)).splitlines()
    assert head == "Sequential: 1 of PyTorch"
    assert columns.split() == ["module", "kind", "whose", "order", "function", "written", "added"]
    assert row.split()[:5] == ["0", "forward", "+kwargs", "PyTorch", "0"]


def test_a_notebook_shows_names_as_text(model):
    @functools.wraps(nothing)
    def hook(*given):
        pass

    hook.__qualname__ = "<img onerror=x>"
    model[0].register_forward_hook(hook)
    shown = hookline.hooks(model)._repr_html_()
    assert "&lt;img onerror=x&gt;" in shown
    assert "<img" not in shown


def test_it_is_a_sequence_and_plain_data(model):
    model[0].register_forward_hook(nothing)
    model[1].register_forward_hook(nothing)
    found = hookline.hooks(model)
    assert [hook.path for hook in found[1:]] == ["1"]
    assert json.loads(found.to_json())["hooks"][0]["flags"] == []
