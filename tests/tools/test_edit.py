"""Edits in a model: which tensor of which call is changed, how gradients flow, and that nothing else is touched."""

import functools
import io
import weakref
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput

import hookline
from hookline import EditError, edits
from hookline.testing import assert_unhooked


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)), nn.Linear(4, 2))


@pytest.fixture
def x():
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


def bert():
    torch.manual_seed(0)
    config = BertConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=32, vocab_size=50)
    return BertModel(config).eval()


IDS = torch.arange(10).reshape(2, 5)


class Gives(nn.Module):
    """Gives what a function makes of its input."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


# Beside hooks by hand


def by_hand(module, function):
    return module.register_forward_hook(lambda module, args, output: function(output))


VECTOR = torch.linspace(-1, 1, 16)
ORACLE = {
    "zero": (edits.zero(), torch.zeros_like),
    "add": (edits.add(VECTOR, scale=3.0), lambda out: out + 3.0 * VECTOR),
    "scale": (edits.scale(0.5), lambda out: out * 0.5),
    "clamp": (edits.clamp(-0.1, 0.1), lambda out: out.clamp(-0.1, 0.1)),
    "replace": (edits.replace(VECTOR), lambda out: VECTOR.expand_as(out).clone()),
    "function": (torch.tanh, torch.tanh),
    "chain": ([edits.scale(2.0), torch.relu], lambda out: torch.relu(out * 2.0)),
}


@pytest.mark.parametrize("name", ORACLE)
def test_an_edited_output_is_bit_by_bit_that_of_a_hook_by_hand(name):
    edit, function = ORACLE[name]
    model = bert()
    with hookline.edit(model, "encoder.layer.1.output", output=edit):
        ours = model(IDS).last_hidden_state
    handle = by_hand(model.encoder.layer[1].output, function)
    theirs = model(IDS).last_hidden_state
    handle.remove()
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, model(IDS).last_hidden_state)


@pytest.mark.parametrize("name", ORACLE)
def test_gradients_through_an_edit_are_those_through_a_hook_by_hand(name):
    edit, function = ORACLE[name]

    def gradients(model):
        model(IDS).last_hidden_state.square().sum().backward()
        zero = torch.zeros(())
        return [zero if parameter.grad is None else parameter.grad for parameter in model.parameters()]

    model, other = bert(), bert()
    with hookline.edit(model, "encoder.layer.1.output", output=edit):
        ours = gradients(model)
    by_hand(other.encoder.layer[1].output, function)
    for mine, theirs in zip(ours, gradients(other), strict=True):
        assert torch.equal(mine, theirs.expand_as(mine))


# Which tensor


def test_input_edit_leaves_the_callers_tensor(model, x):
    before = x.clone()
    with hookline.edit(model, "0", input=lambda tensor: tensor + 1):
        edited = model(x)
    assert torch.equal(x, before)
    assert torch.equal(edited, model(x + 1))


def test_an_input_edit_reaches_a_keyword_argument():
    class Named(nn.Module):
        def forward(self, *, tokens):
            return tokens * 2

    model = Named()
    with hookline.edit(model, "", input=edits.zero()):
        assert model(tokens=torch.ones(2)).tolist() == [0, 0]


def test_an_input_of_several_tensors_is_picked_by_place_or_by_name():
    class Sum(nn.Module):
        def forward(self, a, *, b):
            return a + 10 * b

    model, one = Sum(), torch.ones(1)
    with hookline.edit(model, "", input=edits.zero(), key=0):
        assert model(one, b=one).item() == 10
    with hookline.edit(model, "", input=edits.zero(), key="b"):
        assert model(one, b=one).item() == 1


def test_several_tensors_without_a_key_are_named_in_the_error():
    model = nn.LSTM(2, 3)
    with hookline.edit(model, "", output=edits.zero()), pytest.raises(EditError) as caught:
        model(torch.ones(4, 2))
    assert "the output holds 3 tensors; pick one with key=, such as key=0" in str(caught.value)
    assert "(1, 0): float32[1, 3]" in str(caught.value)
    assert "raised by the after hook edit(output=zero())" in caught.value.__notes__[0]
    assert __file__ in caught.value.__notes__[0]


def test_a_key_that_is_not_there_is_named_in_the_error():
    model = Gives(lambda x: {"logits": x, "cache": None})
    with hookline.edit(model, "", output=edits.zero(), key="logit"):
        with pytest.raises(EditError, match=r"no part \('logit',\); it has 'logits': float32\[2\]"):
            model(torch.ones(2))


def test_an_output_without_tensors_is_an_error():
    model = Gives(lambda x: None)
    with hookline.edit(model, "", output=edits.zero()), pytest.raises(EditError, match="holds no tensor; it is None"):
        model(torch.ones(2))


class Pair(NamedTuple):
    left: torch.Tensor
    right: torch.Tensor


@dataclass
class Parts:
    left: torch.Tensor
    right: torch.Tensor


NESTED = {
    "tuple": (lambda x: (x, x), 1, lambda y: y[1]),
    "tuple from the end": (lambda x: (x, x), -1, lambda y: y[1]),
    "list": (lambda x: [x, x], 0, lambda y: y[0]),
    "dict": (lambda x: {"a": x, "b": x}, "b", lambda y: y["b"]),
    "deeper": (lambda x: {"a": (x, [x, x])}, ("a", 1, 0), lambda y: y["a"][1][0]),
    "named tuple by name": (lambda x: Pair(x, x), "right", lambda y: y.right),
    "named tuple by place": (lambda x: Pair(x, x), 0, lambda y: y.left),
    "dataclass": (lambda x: Parts(x, x), "right", lambda y: y.right),
    "structseq": (lambda x: torch.max(x[None], 0), "values", lambda y: y.values),
    "ModelOutput by name": (lambda x: BaseModelOutput(x, (x, x)), ("hidden_states", 1), lambda y: y.hidden_states[1]),
    "ModelOutput by place": (lambda x: BaseModelOutput(x, (x, x)), 0, lambda y: y[0]),
    "the only tensor of a tuple": (lambda x: (None, x, 3), None, lambda y: y[1]),
}


@pytest.mark.parametrize("name", NESTED)
def test_a_key_picks_one_part_and_the_rest_and_the_kind_stay(name):
    make, key, get = NESTED[name]
    model, x = Gives(make), torch.ones(2)
    kept = make(x)
    with hookline.edit(model, "", output=edits.scale(5.0), key=key):
        output = model(x)
    assert type(output) is type(kept)
    assert get(output).tolist() == [5, 5]
    assert [part.tolist() for _, part in hookline.model.tensors.tensors(output)].count([5, 5]) == 1


def test_the_container_that_a_module_keeps_is_not_changed():
    kept = {"a": torch.ones(2)}
    model = Gives(lambda x: kept)
    with hookline.edit(model, "", output=edits.zero()):
        assert model(torch.ones(1))["a"].tolist() == [0, 0]
    assert kept["a"].tolist() == [1, 1]


def test_both_ends_of_a_module_can_be_changed_at_once(model, x):
    with hookline.edit(model, "1", input=edits.zero(), output=edits.add(1.0)):
        edited = model(x)
    assert torch.equal(edited, model[2](model[1](torch.zeros(3, 4)) + 1))


# Which part of it


def test_at_changes_a_part_and_leaves_the_rest(model, x):
    with hookline.watch(model, keep="copy") as plain:
        model(x)
    with hookline.edit(model, "0", output=edits.zero(), at=(slice(None), 1)), hookline.watch(model, keep="copy") as run:
        model(x)
    expected = plain["0"].output.value.clone()
    expected[:, 1] = 0
    assert torch.equal(run["0"].output.value, expected)


def test_gradients_flow_to_what_at_leaves_and_through_what_it_changes():
    model = nn.Identity()
    x = torch.ones(3, requires_grad=True)
    with hookline.edit(model, "", output=edits.scale(5.0), at=1):
        model(x).sum().backward()
    assert x.grad.tolist() == [1, 5, 1]


def test_mask_picks_positions_of_each_example():
    x = torch.rand(2, 4, 3, requires_grad=True)
    mask = torch.tensor([[True, True, False, False], [True, False, False, True]])
    model, received = nn.Identity(), []
    with hookline.edit(model, "", output=lambda part: received.append(part) or part * 5, at=mask):
        edited = model(x)
    edited.sum().backward()
    factor = torch.where(mask, 5.0, 1.0)[:, :, None].expand_as(x)
    assert torch.equal(edited, x * factor)
    assert torch.equal(x.grad, factor)
    assert [part.shape for part in received] == [(4, 3)]


def test_each_example_has_a_position_of_its_own():
    model, x = nn.Identity(), torch.rand(3, 4, 2)
    positions = torch.tensor([0, 3, 1])
    with hookline.edit(model, "", output=edits.zero(), at=(torch.arange(3), positions)):
        edited = model(x)
    assert (edited == 0).all(dim=2).nonzero().tolist() == [[0, 0], [1, 3], [2, 1]]


def test_mask_of_another_shape_is_an_error():
    model, mask = nn.Identity(), torch.ones(2, 5, dtype=torch.bool)
    with hookline.edit(model, "", output=edits.zero(), at=mask):
        with pytest.raises(EditError, match=r"does not index the output, which is \[2, 4, 3\]: The shape of the mask"):
            model(torch.rand(2, 4, 3))


def test_an_index_that_does_not_fit_says_so(model, x):
    with hookline.edit(model, "0", output=edits.zero(), at=(slice(None), 9)):
        with pytest.raises(EditError, match=r"does not index the output, which is \[3, 4\]"):
            model(x)


def test_a_head_is_ablated_in_an_attention():
    model = bert()
    place = "encoder.layer.0.attention.self"
    with (
        hookline.watch(model, place, keep="copy") as run,
        hookline.edit(model, place, output=edits.zero(), key=0, at=edits.at(head=2, heads=4)),
    ):
        model(IDS)
    values = run[place].output[0].value
    assert values[..., 8:12].abs().max() == 0
    assert values[..., :8].abs().min() > 0


# Which calls


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x):
        return self.layer(x) + 10 * self.layer(x)


@pytest.mark.parametrize(
    ("when", "expected"),
    [(0, [10, 11, 11]), (1, [1, 11, 11]), (slice(1, 4), [1, 0, 11]), ([0, 3], [10, 1, 11]), (range(2, 9), [11, 0, 0])],
)
def test_when_picks_calls_counted_from_when_the_edit_was_put_on(when, expected):
    model = Twice()
    with hookline.watch(model):
        model(torch.ones(()))
        with hookline.edit(model, "layer", output=edits.zero(), when=when):
            assert [model(torch.ones(())).item() for _ in range(3)] == expected


def test_when_asks_a_predicate_of_the_call():
    model = Twice()
    with hookline.edit(model, "layer", output=edits.zero(), when=lambda call: call.args[0] > 1):
        assert model(torch.ones(())).item() == 11
        assert model(2 * torch.ones(())).item() == 0


@pytest.mark.parametrize("when", [-1, [0, -1], slice(-2, None)])
def test_a_call_counted_from_the_end_is_an_error(model, when):
    with pytest.raises(hookline.ArgumentError, match="must count from 0"):
        hookline.edit(model, "0", output=edits.zero(), when=when)


STEPS, FIRST = edits.generation_step([0, 2]), edits.generation_step(0)
SMALL = {"vocab_size": 50, "eos_token_id": 49}


def gpt2():
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, n_positions=32, bos_token_id=0, **SMALL))


def t5():
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0, **SMALL))


def mamba():
    return MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4, **SMALL))


def generate(model, length, **options):
    model.generation_config.pad_token_id = 0
    prompt = torch.arange(1, 1 + length).reshape(1, -1)
    model.eval().generate(prompt, max_new_tokens=4, min_new_tokens=4, do_sample=False, **options)


@pytest.mark.parametrize("make", [gpt2, t5, mamba])
@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"use_cache": False, "num_beams": 3}], ids=str)
def test_when_picks_steps_of_each_generation(make, options):
    torch.manual_seed(0)
    model = make()
    calls, seen = [], []

    def note(tensor):
        seen.append(len(calls) - 1)
        return tensor

    with (
        hookline.on(model, "lm_head", before=lambda call: calls.append(call.index), order=-1),
        hookline.edit(model, "lm_head", output=note, when=STEPS),
    ):
        for length in (4, 5, 3):
            calls.clear()
            generate(model, length, **options)
    assert seen == [0, 2] * 3
    assert_unhooked(model)


def test_an_encoder_runs_in_the_first_step_of_each_generation():
    torch.manual_seed(0)
    model = t5()
    seen = []

    def note(tensor):
        seen.append(tensor)
        return tensor

    with hookline.edit(model, "encoder.block.0.layer.0.SelfAttention.q", output=note, when=FIRST):
        for _ in range(2):
            generate(model, 4)
    assert len(seen) == 2


def test_a_model_whose_steps_cannot_be_told_says_so():
    model = Gives(lambda x: torch.ones(2))
    with (
        hookline.edit(model, "", output=edits.zero(), when=FIRST),
        pytest.raises(EditError, match="neither tokens nor"),
    ):
        model(None)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("backwards", ["in order", "in reverse", "summed", "twice"])
def test_checkpointed_calls_are_changed_as_the_calls_that_they_repeat(reentrant, backwards):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def twice(self, x):
            return self.layer(self.layer(x))

        def forward(self, x, run):
            return run(self.twice, run(self.twice, x))

    def plainly(function, x):
        return function(x)

    def through(function, x):
        return checkpoint(function, x, use_reentrant=reentrant)

    def gradients(run):
        torch.manual_seed(0)
        model = Checkpointed()
        with hookline.edit(model, "layer", output=edits.noise(0.1) >> edits.scale(3.0), when=[0, 3, 5, 9, 10]):
            losses = []
            for _ in range(3):
                losses.append(model(torch.ones(2, 3, requires_grad=True), run).square().mean())
                with torch.no_grad():
                    model(torch.ones(2, 3), plainly)
            for loss in {"summed": [sum(losses)], "in reverse": losses[::-1]}.get(backwards, losses):
                loss.backward(retain_graph=backwards == "twice")
            for loss in losses if backwards == "twice" else ():
                loss.backward()
        return [parameter.grad for parameter in model.parameters()]

    for recomputed, expected in zip(gradients(through), gradients(plainly), strict=True):
        assert torch.allclose(recomputed, expected)


def test_checkpointed_calls_are_changed_again_as_they_were():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x):
            for _ in range(3):
                x = checkpoint(self.layer, x, use_reentrant=False)
            return x

    def gradients(plain):
        torch.manual_seed(0)
        model = Checkpointed()
        forward = model if not plain else lambda x: model.layer(model.layer(model.layer(x)))
        with hookline.edit(model, "layer", output=edits.noise(0.1) >> edits.scale(3.0), when=[0, 2, 4]):
            for _ in range(2):
                forward(torch.ones(2, 3)).square().sum().backward()
        return [parameter.grad for parameter in model.parameters()]

    for recomputed, plain in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(recomputed, plain)


# Gradients


def test_grad_output_changes_what_flows_into_the_module(model, x):
    model(x).sum().backward()
    doubled = [2 * parameter.grad for parameter in model[0].parameters()]
    model.zero_grad()
    with hookline.edit(model, "0", grad_output=edits.scale(2.0)):
        model(x).sum().backward()
    assert all(torch.equal(p.grad, d) for p, d in zip(model[0].parameters(), doubled, strict=True))


def test_grad_input_changes_what_flows_on_from_the_module(model, x):
    with hookline.edit(model, "1", grad_input=edits.zero()):
        model(x).sum().backward()
    assert model[0].weight.grad.abs().sum() == 0
    assert model[1][1].weight.grad.abs().sum() > 0


def test_where_no_gradient_flows_a_gradient_edit_does_nothing(model, x):
    with hookline.edit(model, "0", grad_input=edits.zero()):
        model(x).sum().backward()  # the input of the first layer needs no gradient
    assert model[0].weight.grad.abs().sum() > 0


def test_a_gradient_edit_counts_the_calls_of_the_forward():
    model = Twice()
    x = torch.ones((), requires_grad=True)
    with hookline.edit(model, "layer", grad_input=edits.zero(), when=1):
        model(x).backward()
    assert x.grad.item() == 1


# Skip


def test_skip_gives_back_the_input_and_the_module_does_not_run(model, x):
    ran = []
    model[1].register_forward_hook(lambda *_: ran.append(1))
    with hookline.edit(model, "1", skip=True):
        assert torch.equal(model(x), model[2](model[0](x)))
    assert ran == []


def test_skip_takes_a_function_of_the_call(model, x):
    with hookline.edit(model, "1", skip=lambda call: call.args[0] * 2):
        assert torch.equal(model(x), model[2](model[0](x) * 2))


def test_skip_of_some_calls():
    model = Twice()
    with hookline.edit(model, "layer", skip=lambda call: torch.zeros(()), when=0):
        assert model(torch.ones(())).item() == 10


class Written(nn.Module):
    def forward(self, x):
        outputs = (x,)
        return outputs + (None,)


@pytest.mark.parametrize(
    "module",
    [bert().encoder.layer[0].attention, nn.LSTM(2, 2), nn.GRU(2, 2), nn.MultiheadAttention(2, 1), Written()],
    ids=lambda module: type(module).__name__,
)
def test_skip_of_a_module_that_returns_a_tuple_asks_for_a_function(module):
    with pytest.raises(EditError, match="pass skip= a function of the call, such as lambda call: "):
        hookline.edit(nn.ModuleList([module]), "0", skip=True)


@pytest.mark.parametrize("module", [nn.Linear(2, 2), nn.GRUCell(2, 2), nn.TransformerEncoderLayer(4, 2), nn.ReLU()])
def test_skip_of_a_module_that_gives_a_tensor_is_allowed(module):
    handle = hookline.edit(module, "", skip=True)

    assert handle.active
    handle.remove()
    assert_unhooked(module)


def test_the_answer_of_a_skipped_module_can_be_edited_too(model, x):
    with hookline.edit(model, "1", skip=True, output=edits.scale(2.0)):
        assert torch.equal(model(x), model[2](model[0](x) * 2))


def test_a_skipped_call_keeps_nothing_alive(model, without_gc):
    x = torch.ones(3, 4)
    alive = weakref.ref(x)
    with hookline.edit(model, "0", skip=lambda call: call.args[0] * 2):
        model(x)
    del x
    assert alive() is None


# As a handle


def test_an_edit_stays_until_it_is_removed(model, x):
    plain = model(x)
    handle = hookline.edit(model, "0", output=edits.zero())
    assert handle.active
    assert not torch.equal(model(x), plain)
    handle.remove()
    assert torch.equal(model(x), plain)
    assert_unhooked(model)


def test_edits_apply_in_the_order_they_were_added_or_by_order():
    model, x = nn.Identity(), torch.ones(())
    with hookline.edit(model, "", output=edits.add(1.0)), hookline.edit(model, "", output=edits.scale(3.0)):
        assert model(x).item() == 6
    with hookline.edit(model, "", output=edits.add(1.0)), hookline.edit(model, "", output=edits.scale(3.0), order=-1):
        assert model(x).item() == 4


def test_a_shared_module_is_edited_in_each_of_its_calls():
    model = Twice()
    with hookline.edit(model, "layer", output=edits.zero()):
        assert model(torch.ones(())).item() == 0


IN_PLACE = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))


@pytest.mark.parametrize(
    ("edit", "twice"),
    [
        (edits.zero(), lambda x: torch.zeros_like(x)),
        (edits.replace(torch.ones(3)), lambda x: torch.ones_like(x)),
        (edits.scale(2.0), lambda x: x * 4),
        (edits.add(torch.ones(3)), lambda x: x + 2),
    ],
    ids=["zero", "replace", "scale", "add"],
)
def test_in_place_code_after_an_edit_works(edit, twice):
    x = torch.ones(2, 3)
    with hookline.edit(IN_PLACE, "0", output=edit), hookline.edit(IN_PLACE, "1", input=edit):
        output = IN_PLACE(x)
        output.sum().backward()
    assert torch.equal(output, IN_PLACE[2](torch.relu(twice(IN_PLACE[0](x)))))


def test_in_place_code_after_a_hook_that_gives_a_constant_raises():
    constant = torch.ones(2, 3, requires_grad=True)  # what an edit that makes no copy would give
    with hookline.edit(IN_PLACE, "0", output=lambda tensor: constant), pytest.raises(RuntimeError, match="in-place"):
        IN_PLACE(torch.ones(2, 3))


def test_modules_that_a_fused_path_would_pass_by_are_edited():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    x = torch.ones(2, 3, 8)
    with torch.no_grad():
        plain = model(x)
        with hookline.edit(model, "layers.0.linear1", output=edits.zero()):
            assert not torch.allclose(model(x), plain)
        assert torch.equal(model(x), plain)
    assert_unhooked(model, torch_hooks=True)


def test_an_edited_model_is_traced_with_the_edit(model, x):
    with hookline.edit(model, "0", output=edits.zero()), hookline.edit(model, "1", input=edits.replace(1.0)):
        traced = torch.jit.trace(model, x)
        assert torch.equal(traced(x), model(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to change"),
        ({"output": 0}, r"not 0; to substitute a value use hookline.edits.replace"),
        ({"output": torch.ones(2)}, r"float32\[2\] cpu; to substitute a value use hookline.edits.replace"),
        ({"output": "zero"}, "or a function of the tensor, not 'zero'"),
        ({"output": edits.zero}, "expected an edit"),
        ({"output": edits.zero(), "when": "first"}, "of the Call, not 'first'"),
        ({"output": edits.zero(), "when": True}, "of the Call, not True"),
        ({"output": edits.zero(), "when": nn.Linear}, "when must be a number"),
        ({"skip": 3}, "skip must be True, False or a function of the call, not 3"),
        ({"skip": True, "key": 0}, "skip= alone changes none"),
    ],
)
def test_what_is_no_edit_is_an_error_and_leaves_nothing(model, options, message):
    with pytest.raises(hookline.ArgumentError, match=message):
        hookline.edit(model, "0", **options)
    assert_unhooked(model)


def test_a_pattern_that_picks_nothing_is_an_error(model):
    with pytest.raises(hookline.SelectionError, match="nearest"):
        hookline.edit(model, "1.11", output=edits.zero(), when=edits.generation_step(0))
    assert_unhooked(model)


@pytest.mark.graph
@pytest.mark.parametrize(
    "asked",
    [
        {"output": edits.zero()},
        {"output": lambda tensor: tensor * 3},
        {"output": edits.zero(), "at": (slice(None), -1)},
        {"input": edits.scale(2.0)},
        {"skip": True},
    ],
    ids=["zero", "a function", "at a position", "the input", "skip"],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which dynamo reads
def test_an_edit_is_traced_into_a_compiled_model(model, x, asked):
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    plain = compiled(x)
    with hookline.edit(model, "1.0", **asked):
        assert torch.equal(compiled(x), model(x))
        assert not torch.equal(compiled(x), plain)
    assert torch.equal(compiled(x), plain)


@pytest.mark.parametrize("asked", [{"output": edits.zero(), "when": 0}, {"grad_output": edits.zero()}])
def test_what_a_graph_cannot_do_is_refused_inside_of_a_compiled_model(model, asked):
    model[1].compile(backend="eager")
    with pytest.raises(
        EditError, match="1.0 is compiled by torch.compile: inside its graph an edit cannot count calls"
    ):
        hookline.edit(model, "1.0", **asked)
    with pytest.raises(EditError, match="is compiled by torch.compile"):
        hookline.edit(torch.compile(model, backend="eager"), "0", **asked)
    assert_unhooked(model)


@pytest.mark.graph
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # dynamo's, from 2.14 on
def test_a_compiled_module_itself_is_edited_from_outside(model, x):
    model[1].compile(backend="eager")
    with hookline.edit(model, "1", output=edits.zero(), when=0):
        assert torch.equal(model(x), model[2](torch.zeros(3, 4)))


def scripted():
    return torch.jit.script(nn.ReLU())


def traced():
    return torch.jit.trace(nn.ReLU(), torch.ones(1, 3))


def loaded():
    buffer = io.BytesIO()
    torch.jit.save(scripted(), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


class Builtin(nn.Module):
    forward = torch.relu


class Static(nn.Module):
    forward = staticmethod(torch.relu)


class Partial(nn.Module):
    def __init__(self):
        super().__init__()
        self.forward = functools.partial(torch.clamp, min=0)


class Property(nn.Module):
    @property
    def forward(self):
        return torch.relu


@pytest.mark.parametrize("make", [scripted, traced, loaded, Static, Partial, Property])
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_skip_takes_a_forward_of_any_kind(make, x):
    model = nn.Sequential(make())
    assert not torch.equal(model(-x), -x)
    with hookline.edit(model, "0", skip=True):
        assert torch.equal(model(-x), -x)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_skip_refuses_a_scripted_module_that_gives_a_tuple():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(EditError, match="returns a tuple"):
        hookline.edit(nn.Sequential(torch.jit.script(Pair())), "0", skip=True)
