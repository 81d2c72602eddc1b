"""Our own backward hooks: the gradients of this call alone, whatever the model does around it and with its tensors."""

import copy
import gc
import threading
import weakref
from collections import namedtuple
from dataclasses import dataclass
from types import MappingProxyType

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutput

import hookline
from hookline.model.tensors import tensors


class Lambda(nn.Module):
    """A module that does what a function does, with a parameter of its own."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.tensor([0.5, -1.5, 2.0]))

    def forward(self, *args, **kwargs):
        return self.function(self.weight, *args, **kwargs)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def x():
    return torch.randn(2, 3, requires_grad=True)


class Seen:
    """What a call was given in the forward, copied, and the gradients its steps saw in the backward."""

    def __init__(self, model, where="**"):
        self.forward, self.backward, self.before = [], [], []
        self.handle = hookline.on(
            model,
            where,
            before=lambda call: self.forward.append((call.path, call.index, apart((call.args, call.kwargs)))),
            backward_before=lambda call: self.before.append((call.path, call.index, call.grad_output)),
            backward=self.backward.append,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.handle.remove()

    def check(self, model):
        """Each call's grad_input is what the module alone gives for its grad_output, on copies of its arguments."""
        given = {(path, index): args for path, index, args in self.forward}
        for call in self.backward:
            args, kwargs = given[call.path, call.index]
            expected = alone(model.get_submodule(call.path), args, kwargs, call.grad_output)
            got = [gradient for _, gradient in tensors((call.grad_input, call.grad_kwargs))]
            torch.testing.assert_close(got, expected)
        return len(self.backward)


def apart(value):
    return rebuilt(value, lambda tensor: tensor.detach().clone().requires_grad_(tensor.requires_grad))


def rebuilt(value, change):
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: rebuilt(part, change) for key, part in value.items()}
    if isinstance(value, tuple):
        parts = [rebuilt(part, change) for part in value]
        return value._make(parts) if hasattr(value, "_make") else tuple(parts)
    return value


def alone(module, args, kwargs, grad_output):
    module = copy.deepcopy(module)
    inputs = [tensor for _, tensor in tensors((args, kwargs)) if tensor.requires_grad]
    passed = rebuilt((args, kwargs), lambda tensor: tensor.clone() if tensor.requires_grad else tensor)
    with torch.enable_grad():
        output = module(*passed[0], **passed[1])
    pairs = [(tensor, at(grad_output, keys)) for keys, tensor in tensors(output) if tensor.requires_grad]
    outputs = [tensor for tensor, gradient in pairs if gradient is not None]
    gradients = [gradient for _, gradient in pairs if gradient is not None]
    found = torch.autograd.grad(outputs, inputs, gradients, allow_unused=True) if inputs else ()
    return [gradient for gradient in found if gradient is not None]


def at(value, keys):
    for key in keys:
        value = value[key]
    return value


# C1: in-place operations


def test_an_in_place_operation_on_the_input_before_the_module(x):
    model = Lambda(lambda weight, x: x * weight)
    with Seen(model) as seen:
        y = x * 2
        y.add_(1)
        model(y).sum().backward()
    assert seen.check(model) == 1
    torch.testing.assert_close(x.grad, 2 * model.weight.expand(2, 3))


@pytest.mark.parametrize("function", [torch.relu_, torch.sigmoid_, lambda y: y.mul_(3)])
def test_an_in_place_operation_on_the_input_inside_of_the_module(x, function):
    model = Lambda(lambda weight, x: function(x) * weight)
    with Seen(model) as seen:
        model(x * 2).sum().backward()
    got, x.grad = x.grad, None
    model(x * 2).sum().backward()
    assert torch.equal(got, x.grad)
    assert seen.check(model) == 1


def test_an_input_that_is_used_and_then_changed_in_place(x):
    model = Lambda(lambda weight, x: (x * 2).sum() + (x.mul_(weight) * 3).sum())
    with Seen(model) as seen:
        model(x * 2).backward()
    assert seen.check(model) == 1


def test_a_view_changed_in_place_inside_of_the_module(x):
    model = Lambda(lambda weight, x: x.mul_(2) * weight[:2])
    with Seen(model) as seen:
        whole = x * 1
        (model(whole[:, 1:]).sum() + whole.sum()).backward()
    got, x.grad = x.grad, None
    whole = x * 1
    (model(whole[:, 1:]).sum() + whole.sum()).backward()
    assert torch.equal(got, x.grad)
    assert seen.backward[0].grad_input[0].shape == (2, 2)
    torch.testing.assert_close(seen.backward[0].grad_input[0], 2 * (model.weight[:2] + 1).expand(2, 2))


@pytest.mark.parametrize("function", [torch.relu_, torch.sigmoid_, lambda y: y.mul_(3)])
def test_an_in_place_operation_on_the_output_after_the_module(x, function):
    model = Lambda(lambda weight, x: x + weight)
    with Seen(model) as seen:
        function(model(x)).sum().backward()
    got, x.grad = x.grad, None
    function(model(x)).sum().backward()
    assert torch.equal(got, x.grad)
    assert seen.check(model) == 1
    assert torch.equal(seen.backward[0].grad_output, got)


def test_an_in_place_operation_on_one_of_several_outputs_after_the_module(x):
    model = Lambda(lambda weight, x: (x * weight, x + weight))
    with Seen(model) as seen:
        first, second = model(x)
        (first.mul_(2).sum() + second.relu_().sum()).backward()
    assert seen.check(model) == 1
    assert torch.equal(seen.backward[0].grad_output[0], torch.full((2, 3), 2.0))


def test_in_place_change_of_output_needed_in_backward_still_raises(x):
    model = Lambda(lambda weight, x: (torch.sigmoid(x), x * weight))
    with Seen(model), pytest.raises(RuntimeError, match="modified by an inplace operation"):
        first, second = model(x)
        (first.mul_(2).sum() + second.sum()).backward()


def test_a_residual_branch_with_in_place_activations(x):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.relu, self.linear = nn.LayerNorm(3), nn.ReLU(inplace=True), nn.Linear(3, 3)

        def forward(self, x):
            return self.relu(x + self.linear(self.relu(self.norm(x))))

    model = nn.Sequential(Block(), Block(), nn.Identity())
    with Seen(model) as seen:
        model(x).square().sum().backward()
    got, x.grad = x.grad, None
    model(x).square().sum().backward()
    torch.testing.assert_close(got, x.grad)
    assert seen.check(model) == 12


# C2: outputs of every nesting

Pair = namedtuple("Pair", "left right")


class Triple(tuple):
    pass


@dataclass
class Result:
    logits: torch.Tensor
    extra: dict


NESTINGS = {
    "dict": lambda weight, x: {"a": x * weight, "b": x + weight},
    "list": lambda weight, x: [x * weight, None, x + weight],
    "nested": lambda weight, x: (x * weight, [{"deep": (x + weight,)}], 3),
    "namedtuple": lambda weight, x: Pair(x * weight, x + weight),
    "structseq": lambda weight, x: torch.max(x * weight, 1),
    "tuple subclass": lambda weight, x: Triple((x * weight, x + weight)),
    "dataclass": lambda weight, x: Result(x * weight, {"hidden": [x + weight]}),
    "ModelOutput": lambda weight, x: BaseModelOutput(x * weight, hidden_states=(x + weight, x - weight)),
    "one tensor in a dict": lambda weight, x: {"only": x * weight},
}


@pytest.mark.parametrize("function", NESTINGS.values(), ids=NESTINGS)
def test_an_output_of_any_nesting(x, function):
    model = Lambda(function)
    plain = model(x)
    with Seen(model) as seen:
        output = model(x)
        sum(tensor.square().sum() for _, tensor in tensors(output) if tensor.requires_grad).backward()
    assert type(output) is type(plain)
    torch.testing.assert_close(*[[tensor for _, tensor in tensors(each)] for each in (output, plain)])
    assert seen.check(model) == 1
    assert len(seen.before) == 1


def test_gradients_of_a_dataclass_read_as_it_does(x):
    model = Lambda(NESTINGS["dataclass"])
    with Seen(model) as seen:
        model(x).logits.sum().backward()
    assert torch.equal(seen.backward[0].grad_output.logits, torch.ones(2, 3))
    assert seen.backward[0].grad_output.extra == {"hidden": [None]}


def test_a_packed_sequence_goes_in_and_out():
    model = nn.GRU(3, 4)
    packed = pack_sequence([torch.randn(3, 3), torch.randn(2, 3)])
    packed = packed._replace(data=packed.data.requires_grad_())
    with Seen(model) as seen:
        output, _ = model(packed)
        assert type(output) is type(packed)
        output.data.sum().backward()
    call = seen.backward[0]
    assert torch.equal(call.grad_input[0].data, packed.data.grad)
    assert torch.equal(call.grad_output[0].data, torch.ones(5, 4))


def test_an_output_used_again_by_the_module_counts_what_comes_from_outside(x):
    def hidden_and_result(weight, x):
        hidden = x * weight
        return hidden, hidden.square()

    model = Lambda(hidden_and_result)
    with Seen(model) as seen:
        hidden, result = model(x)
        (hidden * 3 + result).sum().backward()
    assert seen.check(model) == 1
    assert torch.equal(seen.backward[0].grad_output[0], torch.full((2, 3), 3.0))


def test_outputs_nobody_uses_have_none(x):
    model = Lambda(lambda weight, x: (x * weight, x + weight))
    with Seen(model) as seen:
        model(x)[1].sum().backward()
    assert seen.backward[0].grad_output[0] is None
    assert seen.check(model) == 1


def test_containers_that_are_passed_and_given_stay_the_objects_that_they_are(x):
    class Cache(nn.Module):
        def forward(self, batch, *, log):
            batch["hidden"] = batch["x"] * 2
            log.append(batch["hidden"] + 1)
            return batch

    model, batch, log = Cache(), {"x": x}, [x]
    with Seen(model) as seen:
        output = model(batch, log=log)
        (output["hidden"] + log[1]).sum().backward()
    assert output is batch
    assert [*batch] == ["x", "hidden"]
    assert batch["x"] is x
    assert len(log) == 2
    assert log[0] is x
    assert torch.equal(x.grad, torch.full((2, 3), 4.0))
    assert torch.equal(seen.backward[0].grad_input[0]["x"], torch.full((2, 3), 4.0))


def test_a_mapping_that_cannot_be_changed_is_passed_as_it_is(x):
    model = Lambda(lambda weight, parts: parts["x"] * weight)
    with Seen(model) as seen:
        model(MappingProxyType({"x": x})).sum().backward()
    assert seen.backward[0].grad_input == ({"x": None},)
    assert torch.equal(x.grad, model.weight.expand(2, 3))


def test_real_view_changed_in_place_keeps_its_gradients(x):
    model = Lambda(lambda weight, parts: parts.mul_(2))
    loss = lambda: model(torch.view_as_real(torch.complex(x, x) * 1)).sum().backward()
    with Seen(model):
        loss()
    got, x.grad = x.grad, None
    loss()
    assert torch.equal(got, x.grad)


def test_containers_hold_what_they_held_also_when_the_module_raises(x):
    def fail(weight, batch):
        raise ValueError

    batch, model = [x], Lambda(fail)
    with hookline.on(model, "", backward=lambda call: None), pytest.raises(ValueError):
        model(batch)
    assert batch[0] is x


@pytest.mark.parametrize(
    ("function", "use"),
    [
        (lambda weight, x: (x * 1).split(1), lambda out: out[1].sum() + out[0].sum()),
        (lambda weight, x: (lambda h: (h, h.view(-1)))(x * 1), lambda out: (out[0].mul_(3), out[1].sum())[1]),
        (lambda weight, x: (x, x.sum()), lambda out: out[0].mul_(3).sum() + out[1]),
    ],
    ids=["views", "a tensor and its view", "the input"],
)
def test_outputs_that_share_memory_do_so_for_autograd_too(x, function, use):
    model = Lambda(function)
    with hookline.on(model, "", backward_before=lambda call: None, backward=lambda call: None):
        use(model(x * 1)).backward()
    got, x.grad = x.grad, None
    use(model(x * 1)).backward()
    assert torch.equal(got, x.grad)


PARTS = {
    "split": lambda weight, x: (x * 1).split(1),
    "chunks of the last dimension": lambda weight, x: (x.repeat(1, 2) * 1).chunk(2, -1),
    "rows": lambda weight, x: (lambda h: (h[0], h[1]))(x * 1),
    "a transposed one": lambda weight, x: ((x * 1).t(), x + 1),
}


@pytest.mark.parametrize("function", PARTS.values(), ids=PARTS)
def test_backward_before_changes_outputs_that_are_parts_of_one_memory(x, function):
    model, seen = Lambda(function), []

    def drop_the_first(call):
        seen.append(call.grad_output)
        call.grad_output = (None, call.grad_output[1])

    loss = lambda outputs: outputs[0].sum() + 2 * outputs[1].sum()
    with hookline.on(model, "", backward_before=drop_the_first):
        loss(model(x)).backward()
    got, x.grad = x.grad, None
    outputs = model(x)
    (outputs[0].detach().sum() + 2 * outputs[1].sum()).backward()
    torch.testing.assert_close(got, x.grad)
    assert [bool((gradient == number).all()) for number, gradient in enumerate(seen[0], 1)] == [True, True]


@pytest.mark.parametrize("first", [True, False], ids=["batch first", "batch second"])
def test_backward_before_stops_the_gradient_of_an_lstm_and_of_attention(first):
    x = torch.randn(3, 3, 4, requires_grad=True)

    def stop(call):
        call.grad_output = (None, call.grad_output[1])

    for model, args in (
        (nn.LSTM(4, 4, batch_first=first), (x,)),
        (nn.MultiheadAttention(4, 2, batch_first=first), (x, x, x)),
    ):
        with hookline.on(model, "", backward_before=stop):
            model(*args)[0].sum().backward()
        assert not x.grad.any()


def test_gradients_of_outputs_that_share_elements_are_seen_and_cannot_be_assigned(x):
    model, seen = Lambda(lambda weight, x: (lambda h: (h, h.view(-1)))(x * 1)), []

    def double(call):
        seen.append(call.grad_output)
        call.grad_output = tuple(gradient * 2 for gradient in call.grad_output)

    with (
        hookline.on(model, "", backward_before=double),
        pytest.raises(hookline.GradientError, match="shares memory with others cannot be assigned"),
    ):
        sum(part.sum() for part in model(x)).backward()
    assert torch.equal(seen[0][1], torch.ones(6))


def test_backward_sees_outputs_that_backward_before_was_too_early_for(x):
    model, seen = Lambda(lambda weight, x: (x, x * weight)), []
    with hookline.on(model, "", backward_before=lambda call: None, backward=lambda call: seen.append(call.grad_output)):
        first, second = model(x * 1)
        (first * 3 + second).sum().backward()
    assert seen[0][0] is not None
    assert torch.equal(seen[0][1], torch.ones(2, 3))


def test_equal_gradients_for_one_tensor_in_two_places_may_be_assigned(x):
    model = Lambda(lambda weight, query, key: query * key)

    def clip(call):
        call.grad_input = tuple(gradient.clamp(-0.1, 0.1) for gradient in call.grad_input)

    with hookline.on(model, "", backward=clip):
        model(x, x).sum().backward()
    assert x.grad.abs().max() <= 0.1


def test_reused_tensor_is_seen_by_its_maker_and_last_call(x):
    kept = x * 2
    model, seen = Lambda(lambda weight, y: kept), []
    with hookline.on(model, "", backward_before=lambda call: seen.append(call.index)):
        model(x)
        model(x)
        model(x).sum().backward()
    assert seen == [2, 0]


# C3: keyword arguments


def test_keyword_arguments_have_gradients_by_name(x):
    model = Lambda(lambda weight, x, *, scale, mask=None: x * scale * weight)
    scale = torch.randn(2, 3, requires_grad=True)
    with Seen(model) as seen:
        model(x, scale=scale, mask=torch.ones(2)).sum().backward()
    call = seen.backward[0]
    assert torch.equal(call.grad_input[0], x.grad)
    assert torch.equal(call.grad_kwargs["scale"], scale.grad)
    assert call.grad_kwargs["mask"] is None


def test_a_call_with_keyword_arguments_alone(x):
    model = Lambda(lambda weight, *, x: x * weight)
    with Seen(model) as seen:
        model(x=x).sum().backward()
    assert seen.backward[0].grad_input == ()
    assert torch.equal(seen.backward[0].grad_kwargs["x"], x.grad)


# C4: an LSTM


@pytest.mark.parametrize("loss", [lambda out, h, c: h.sum(), lambda out, h, c: c.sum(), lambda out, h, c: out.sum()])
def test_an_lstm_with_a_loss_on_one_of_its_outputs(loss):
    model, x = nn.LSTM(3, 4, num_layers=2), torch.randn(5, 2, 3, requires_grad=True)
    with Seen(model) as seen:
        output, (hidden, cell) = model(x)
        loss(output, hidden, cell).backward()
    assert torch.equal(seen.backward[0].grad_input[0], x.grad)
    assert seen.check(model) == 1


# C5: this call alone


def test_a_tensor_that_feeds_several_modules_has_a_gradient_for_each(x):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            shared = x * 2
            return self.left(shared) + self.right(shared) * 5 + shared

    model = Branches()
    with Seen(model) as seen:
        model(x).sum().backward()
    assert seen.check(model) == 3
    by_path = {call.path: call.grad_input[0] for call in seen.backward}
    assert not torch.allclose(by_path["left"], by_path["right"])


def test_one_tensor_in_two_arguments_has_the_gradient_of_both_in_both(x):
    model = Lambda(lambda weight, query, key: query * weight + key * 3)
    with Seen(model) as seen:
        model(x, x).sum().backward()
    left, right = seen.backward[0].grad_input
    assert torch.equal(left, x.grad)
    assert torch.equal(right, x.grad)


def test_a_module_called_many_times_before_one_backward(x):
    model = nn.Linear(3, 3)
    with Seen(model) as seen:
        model(model(model(x))).sum().backward()
    assert [call.index for call in seen.backward] == [2, 1, 0]
    assert seen.check(model) == 3


def test_several_arguments_with_gradients():
    model = nn.MultiheadAttention(4, 2, batch_first=True)
    query, key, value = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(3))
    with Seen(model, "") as seen:
        model(query, key, value, need_weights=False)[0].square().sum().backward()
    assert seen.check(model) == 1
    for gradient, tensor in zip(seen.backward[0].grad_input, (query, key, value), strict=True):
        assert torch.equal(gradient, tensor.grad)


def test_an_argument_that_is_the_same_object_twice_stays_so(x):
    same = []
    model = Lambda(lambda weight, query, key: (same.append(query is key), query * weight)[1])
    with Seen(model):
        model(x, x)
    assert same == [True]


@pytest.mark.parametrize("module", [nn.Identity(), nn.Dropout(0.0), nn.Sequential(nn.Sequential(nn.Identity()))])
def test_a_module_that_gives_on_what_it_is_given(x, module):
    with Seen(module) as seen:
        (module(x) * 3).sum().backward()
    assert seen.check(module) == len([*module.modules()])
    assert len(seen.before) == len(seen.backward)


def test_arguments_are_seen_by_finite_differences():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(2, 3, dtype=torch.double, requires_grad=True)
    with Seen(model):
        assert torch.autograd.gradcheck(model, (x,))
        assert torch.autograd.gradgradcheck(model, (x,))


# C6: when


def test_a_backward_step_sees_the_gradients_of_the_modules_own_parameters(x):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    there = {}

    def look(call):
        there[call.path] = [parameter.grad is not None for parameter in call.module.parameters()]

    with hookline.on(model, "**", backward=look):
        model(x.detach()).sum().backward()
    assert there == {"": [True] * 6, "0": [True] * 2, "1": [True] * 2, "2": [True] * 2}


def test_inner_calls_come_before_outer_ones_though_no_input_needs_a_gradient(x):
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 4)), nn.Linear(4, 2))
    order = []
    with hookline.on(model, "**", backward=lambda call: order.append(call.path)):
        model(x.detach()).sum().backward()
    assert order == ["1", "0.0", "0", ""]


def test_backward_before_runs_from_the_outside_in_and_backward_from_the_inside_out(x):
    model = nn.Sequential(nn.Sequential(nn.Identity(), nn.Linear(3, 3)))
    order = []
    steps = {
        "backward_before": lambda call: order.append(f"before {call.path}"),
        "backward": lambda call: order.append(call.path),
    }
    with hookline.on(model, "**", **steps):
        model(x).sum().backward()
    assert order == ["before ", "before 0", "before 0.1", "0.1", "before 0.0", "0.0", "0", ""]


def test_an_input_that_the_module_lets_no_gradient_through_to(x):
    model = Lambda(lambda weight, x: x.detach() * weight)
    with Seen(model) as seen:
        (model(x).sum() + x.sum()).backward()
    assert seen.backward[0].grad_input == (None,)


def test_a_model_whose_gradients_nobody_asks_for_runs_no_step(x):
    model = nn.Linear(3, 3)
    with Seen(model) as seen, torch.no_grad():
        model(x)
    with Seen(model) as frozen:
        model.requires_grad_(False)(x.detach())
    assert seen.backward == frozen.backward == []


# Changing gradients


def test_backward_before_changes_what_flows_into_the_module(x):
    model = nn.Linear(3, 3)

    def double(call):
        call.grad_output = call.grad_output * 2

    model(x).sum().backward()
    expected, x.grad = x.grad, None
    seen = []
    with hookline.on(model, "", backward_before=double, backward=lambda call: seen.append(call.grad_output)):
        model(x).sum().backward()
    torch.testing.assert_close(x.grad, 2 * expected)
    assert torch.equal(seen[0], torch.full((2, 3), 2.0))


def test_backward_before_changes_one_of_several_outputs(x):
    model = Lambda(lambda weight, x: {"a": x * 2, "b": x * 3})

    def drop(call):
        call.grad_output = {**call.grad_output, "b": None}

    with hookline.on(model, "", backward_before=drop):
        output = model(x)
        (output["a"] + output["b"]).sum().backward()
    assert torch.equal(x.grad, torch.full((2, 3), 2.0))


def test_backward_changes_what_flows_on_and_not_the_parameters_gradients(x):
    model = nn.Linear(3, 3)

    def stop(call):
        call.grad_input = (None,)

    with hookline.on(model, "", backward=stop):
        model(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros(2, 3))
    assert model.weight.grad.abs().sum() > 0


def test_backward_changes_arguments_by_position_and_by_name(x):
    model = Lambda(lambda weight, x, *, scale: x * scale)
    scale = torch.ones(2, 3, requires_grad=True)

    def change(call):
        call.grad_input = (call.grad_input[0] * 10,)
        call.grad_kwargs["scale"] = call.grad_kwargs["scale"] * 100

    with hookline.on(model, "", backward=change):
        model(x, scale=scale).sum().backward()
    assert torch.equal(x.grad, torch.full((2, 3), 10.0))
    torch.testing.assert_close(scale.grad, 100 * x.detach())


@pytest.mark.parametrize("view", [lambda whole: whole, lambda whole: whole[:, :2]], ids=["whole", "view"])
def test_backward_may_assign_gradient_of_argument_changed_in_place(x, view):
    model = nn.ReLU(inplace=True)

    def ten(call):
        call.grad_input = (torch.full_like(call.grad_input[0], 10.0),)

    with hookline.on(model, "", backward=ten):
        whole = x * 1
        model(view(whole))
        whole.sum().backward()
    expected = torch.ones(2, 3)
    view(expected)[:] = 10
    assert torch.equal(x.grad, expected)


def test_steps_of_one_module_see_what_those_before_them_assigned(x):
    model, seen = nn.Identity(), []

    def double(call):
        call.grad_input = (call.grad_input[0] * 2,)

    with (
        hookline.on(model, "", backward=lambda call: seen.append(call.grad_input[0]), order=2),
        hookline.on(model, "", backward=double, order=1),
    ):
        model(x).sum().backward()
    assert torch.equal(seen[0], torch.full((2, 3), 2.0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.ones(5), r"grad_input was assigned Tensor where a tuple of 1 belongs"),
        (
            (torch.ones(5),),
            r"grad_input was assigned float32\[5\] where a gradient of float32\[2, 3\] belongs",
        ),
        ((1, 2), r"grad_input was assigned a tuple of 2 where a tuple of 1 belongs"),
        (("x",), r"grad_input was assigned str where a gradient of float32\[2, 3\] belongs"),
    ],
)
def test_a_gradient_that_does_not_fit_is_an_error_that_says_what_does(x, given, message):
    model = nn.Identity()

    def misassign(call):
        call.grad_input = given

    with hookline.on(model, "", backward=misassign), pytest.raises(hookline.GradientError, match=message) as caught:
        model(x).sum().backward()
    assert caught.value.__notes__ == ["hookline: assigned by a backward hook in the model (Identity, call 0)"]


def test_two_gradients_for_one_tensor_are_an_error(x):
    model = Lambda(lambda weight, query, key: query * key)

    def misassign(call):
        call.grad_input = torch.ones(2, 3), torch.zeros(2, 3)

    with (
        hookline.on(model, "", backward=misassign),
        pytest.raises(hookline.GradientError, match="of one tensor that is in two places"),
    ):
        model(x, x).sum().backward()


def test_the_error_of_a_backward_step_says_which_step_added_where(x):
    def bad(call):
        raise ValueError("no")

    model = nn.Sequential(nn.Identity())
    with hookline.on(model, "0", backward=bad), pytest.raises(ValueError, match="no") as caught:
        model(x).sum().backward()
    (note,) = caught.value.__notes__
    assert "raised by the backward hook" in note
    assert "bad, added at" in note
    assert "in 0 (Identity, call 0)" in note


def test_after_an_error_in_a_step_the_next_backward_is_whole(x):
    model, seen, fails = nn.Linear(3, 3), [], [True]

    def once(call):
        seen.append(call.grad_input[0])
        if fails.pop() if fails else False:
            raise ValueError

    with hookline.on(model, "", backward=once):
        with pytest.raises(ValueError):
            model(x).sum().backward()
        model(x).sum().backward()
    assert len(seen) == 2


# C10: removed means removed


def test_a_step_removed_between_forward_and_backward_does_not_run(x):
    model, seen = nn.Linear(3, 3), []
    handle = hookline.on(model, "", backward=seen.append)
    kept = hookline.on(model, "", backward=lambda call: seen.append("kept"))
    loss = model(x).sum()
    handle.remove()
    loss.backward()
    kept.remove()
    assert seen == ["kept"]


def test_a_step_added_between_forward_and_backward_counts_from_the_next_forward(x):
    model, seen = nn.Linear(3, 3), []
    loss = model(x).sum()
    with hookline.on(model, "", backward=lambda call: seen.append(call.index)):
        loss.backward()
        assert seen == []
        model(x).sum().backward()
    assert seen == [0]


def test_everywhere_takes_backward_steps_too(x):
    seen = []
    with hookline.everywhere(backward=lambda call: seen.append(call.path)):
        nn.Sequential(nn.Linear(3, 3))(x).sum().backward()
        loss = nn.Linear(3, 3)(x).sum()
    loss.backward()
    assert seen == ["0", ""]


# Several passes


def test_two_backward_passes_over_one_graph_are_seen_apart(x):
    model, seen = nn.Linear(3, 3), []
    with hookline.on(model, "", backward=lambda call: seen.append(call.grad_output[0, 0].item())):
        output = model(x)
        output.sum().backward(retain_graph=True)
        (output * 7).sum().backward()
    assert seen == [1, 7]


def test_double_backward_gives_what_it_gives_without(x):
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())

    def penalty():
        (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), [x, *model.parameters()], allow_unused=True)

    expected = penalty()
    with Seen(model):
        got = penalty()
    torch.testing.assert_close(got, expected)


def test_a_gradient_that_a_step_computes_with_can_be_differentiated(x):
    model = nn.Tanh()

    def square(call):
        call.grad_input = (call.grad_input[0].square(),)

    with hookline.on(model, "", backward=square):
        (gradient,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(gradient.sum(), x)
    z = x.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad((1 - z.tanh().square()).square().sum(), z)
    assert second.shape == expected.shape
    torch.testing.assert_close(gradient.detach(), (1 - z.tanh().square()).square().detach())


def test_autograd_grad_of_the_parameters_alone(x):
    model, seen = nn.Linear(3, 3), []
    with hookline.on(model, "", backward=seen.append):
        torch.autograd.grad(model(x).sum(), [model.weight])
    (call,) = seen
    assert torch.equal(call.grad_output, torch.ones(2, 3))


# Checkpointing, transforms, threads


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_block_has_its_gradients(x, reentrant):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.head = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(checkpoint(self.block, x, use_reentrant=reentrant))

    model = Model()
    model(x).sum().backward()
    expected = [x.grad, *(parameter.grad for parameter in model.parameters())]
    x.grad = None
    model.zero_grad()
    recomputed = []
    with (
        Seen(model) as seen,
        hookline.on(model, "block.0", before=lambda call: recomputed.append(call.recompute)),
    ):
        model(x).sum().backward()
    got = [x.grad, *(parameter.grad for parameter in model.parameters())]
    assert all(map(torch.equal, got, expected))
    assert sorted(call.path for call in seen.backward) == ["", "block", "block.0", "block.1", "head"]
    assert recomputed == [False, True]


def test_calls_are_balanced_in_a_checkpoint(x):
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    begun, ended = [], []
    with hookline.on(
        model,
        "**",
        before=lambda c: begun.append(c.path),
        always=lambda c: ended.append(c.path),
        backward=lambda c: None,
    ):
        checkpoint(model, x, use_reentrant=False).sum().backward()
    assert sorted(begun) == sorted(ended)


def test_torch_func_grad_runs_the_steps(x):
    model, seen = nn.Linear(3, 3), []
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(parameters):
        return torch.func.functional_call(model, parameters, (x.detach(),)).square().sum()

    expected = torch.func.grad(loss)(parameters)
    with hookline.on(model, "", backward=lambda call: seen.append(call.grad_output)):
        got = torch.func.grad(loss)(parameters)
    torch.testing.assert_close(got, expected)
    assert len(seen) == 1


def test_per_sample_gradients_run_the_steps(x):
    model, seen = nn.Linear(3, 3), []
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(parameters, sample):
        return torch.func.functional_call(model, parameters, (sample,)).square().sum()

    per_sample = torch.vmap(torch.func.grad(loss), (None, 0))
    expected = per_sample(parameters, x.detach())
    with hookline.on(model, "", backward=lambda call: seen.append(1)):
        torch.testing.assert_close(per_sample(parameters, x.detach()), expected)
    assert seen == [1]


def test_inside_of_vmap_alone_there_is_one_clear_error(x):
    model = nn.Linear(3, 3)
    with (
        hookline.on(model, "", backward=lambda call: None),
        pytest.raises(hookline.GradientError, match=r"inside torch\.vmap"),
    ):
        torch.vmap(model)(x)
    with hookline.on(model, "", backward=lambda call: None), torch.no_grad():
        torch.testing.assert_close(torch.vmap(model)(x), model(x))


def test_forward_mode_gives_what_it_gives_without(x):
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    expected = torch.func.jvp(model, (x.detach(),), (torch.ones(2, 3),))
    with hookline.on(model, "**", backward=lambda call: None):
        torch.testing.assert_close(torch.func.jvp(model, (x.detach(),), (torch.ones(2, 3),)), expected)


def test_transforms_of_a_module_with_several_outputs(x):
    model = Lambda(lambda weight, x: (x * weight, (x + weight).square()))
    loss = lambda x: sum(part.sum() for part in model(x))
    x = x.detach()
    expected = torch.func.grad(loss)(x), torch.func.jvp(model, (x,), (x,)), torch.vmap(torch.func.grad(loss))(x)
    with hookline.on(model, "", backward=lambda call: None):
        got = torch.func.grad(loss)(x), torch.func.jvp(model, (x,), (x,)), torch.vmap(torch.func.grad(loss))(x)
    torch.testing.assert_close(got, expected)


def test_a_traced_or_exported_model_is_that_without_steps(x):
    model = Lambda(lambda weight, x: (x * weight, x + weight))
    plain = torch.jit.trace(model, x).code
    exported = torch.export.export(model, (x,), strict=False).graph_module.code
    with hookline.on(model, "", backward_before=lambda call: None, backward=lambda call: None):
        assert torch.jit.trace(model, x).code == plain
        assert torch.export.export(model, (x,), strict=False).graph_module.code == exported


def test_gradients_taken_in_a_forward_run_no_hooks_of_unfinished_calls(x):
    class Forces(nn.Module):
        def forward(self, x):
            return torch.autograd.grad(x.pow(3).sum(), x, create_graph=True)[0]

    model, seen = Forces(), []
    with hookline.on(model, "", backward=lambda call: seen.append(call.grad_output.norm())):
        model(x).sum().backward()
    assert len(seen) == 1
    torch.testing.assert_close(x.grad, 6 * x.detach())


def test_threads_that_call_one_module_have_each_their_own_gradients():
    model, seen = nn.Linear(3, 3), []

    def work(number):
        x = torch.full((2, 3), float(number), requires_grad=True)
        for _ in range(20):
            (model(x) * number).sum().backward()

    with hookline.on(model, "", backward=lambda call: seen.append(call.grad_output[0, 0].item())):
        threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(seen) == [1] * 20 + [2] * 20 + [3] * 20


# Memory


@pytest.mark.parametrize("function", [lambda weight, x: x * weight, lambda weight, x: (x * weight, torch.relu_(x * 1))])
@pytest.mark.parametrize("run", ["dropped", "backward", "failed"])
def test_a_graph_that_is_dropped_frees_everything_without_the_garbage_collector(function, run):
    model = Lambda(function)
    gc.collect()
    gc.disable()
    try:
        with hookline.on(model, "", backward_before=lambda call: None, backward=lambda call: 1 / (run != "failed")):
            leaf = torch.ones(2, 3, requires_grad=True)
            x = leaf * 2
            output = model(x)
            alive = [weakref.ref(tensor) for _, tensor in tensors((x, output))]
            if run != "dropped":
                try:
                    sum(tensor.sum() for _, tensor in tensors(output)).backward()
                except ZeroDivisionError as error:
                    error.__traceback__ = None
            node = weakref.ref(Canary(output if isinstance(output, torch.Tensor) else output[0]))
            del x, output
        assert [reference() for reference in alive] == [None] * len(alive)
        assert node() is None
    finally:
        gc.enable()


class Canary:
    """Lives as long as the graph that made a tensor."""

    def __init__(self, tensor):
        tensor.grad_fn.metadata["canary"] = self


@pytest.mark.parametrize(
    "function", [lambda weight, x: x * weight, lambda weight, x: torch.stack([x, x * weight]).sum(0)]
)
@pytest.mark.parametrize("inputs", [1, 2])
def test_the_gradients_of_a_call_are_let_go_of_when_its_backward_is_through(x, function, inputs):
    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(Lambda(lambda weight, *args: function(weight, sum(args))) for _ in range(5))

        def forward(self, x):
            x = Counting.apply(x)
            for part in self.parts:
                x = part(*[x * 1 for _ in range(inputs)])
            return x.exp()

    seen, alive = [], []

    class Counting(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, gradient):
            alive.extend(reference for reference in seen if reference() is not None and reference() is not gradient)
            return gradient

    def see(call):
        seen.extend(weakref.ref(gradient) for _, gradient in tensors((call.grad_output, call.grad_input)))

    model = Chain()
    with hookline.on(model, "parts.*", backward_before=lambda call: None, backward=see):
        model(x).sum().backward()
    assert len(seen) == 5 * (1 + inputs)
    assert alive == []


def test_a_module_that_keeps_its_own_output_dies_with_it(x):
    class Keeps(nn.Module):
        def forward(self, x):
            self.kept = x * 2
            return self.kept

    model = Keeps()
    with hookline.on(model, "", backward=lambda call: None):
        model(x)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_backward_call_is_no_recomputation(x):
    model, seen = nn.Linear(3, 3), []
    with hookline.on(model, "", backward=lambda call: seen.append(call.recompute)):
        model(x).sum().backward()
    assert seen == [False]


def test_a_backward_call_holds_no_tensor_of_the_forward(x):
    model = nn.Sequential(nn.Linear(3, 3))
    with Seen(model) as seen:
        model(x).sum().backward()
    call = seen.backward[0]
    assert (call.args, call.kwargs, call.output) == ((), {}, None)
    assert call.parent.path == ""
    assert (call.parent.args, call.parent.output) == ((), None)
