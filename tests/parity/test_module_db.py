"""PyTorch's own samples of every torch.nn module: the same outputs, gradients and exceptions under our engine, bit by bit."""

import warnings
from contextlib import nullcontext

import pytest
import torch

import hookline
from hookline.model.tensors import tensors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_modules import module_db

pytestmark = pytest.mark.filterwarnings("ignore")


MOST = 60  # samples of one module: a few have hundreds, of every size and reduction


def samples(info, training):
    torch.manual_seed(0)
    made = info.module_inputs_func(info, device="cpu", dtype=torch.float32, requires_grad=True, training=training)
    return [*made][:MOST]


def outcomes(info, training, around=nullcontext, hooked=lambda module: nullcontext()):
    """For each sample what came of it: outputs and gradients, or the exception."""
    found = []
    with around():
        for sample in samples(info, training):
            torch.manual_seed(1)
            try:
                module = info.module_cls(*sample.constructor_input.args, **sample.constructor_input.kwargs)
                module.train(training)
                with hooked(module):
                    found.append(outcome(module, sample.forward_input))
            except Exception as error:
                found.append((type(error), str(error)))
    return found


def outcome(module, given):
    output = module(*given.args, **given.kwargs)
    made = [tensor for _, tensor in tensors(output)]
    total = sum(
        (tensor * torch.linspace(1, 2, tensor.numel()).reshape(tensor.shape)).sum()
        for tensor in made
        if tensor.requires_grad and not tensor.is_complex()
    )
    if isinstance(total, torch.Tensor):
        total.backward()
    inputs = [tensor.grad for _, tensor in tensors((given.args, given.kwargs)) if tensor.is_leaf]
    return [*made, *inputs, *(parameter.grad for parameter in module.parameters())]


def assert_same(ours, theirs, compare=torch.equal):
    assert len(ours) == len(theirs) > 0
    for left, right in zip(ours, theirs, strict=True):
        if isinstance(right, tuple):
            assert left == right
        else:
            assert len(left) == len(right)
            assert all(same(one, other, compare) for one, other in zip(left, right, strict=True))


def same(left, right, compare):
    if left is None or right is None:
        return left is right
    if left.is_floating_point() or left.is_complex():
        left, right = left.detach().nan_to_num(7.0), right.detach().nan_to_num(7.0)
    return compare(left, right)


def pytorchs_hooks(module):
    """A hook of each kind on the module."""
    module.register_forward_pre_hook(lambda module, args, kwargs: None, with_kwargs=True)
    module.register_forward_hook(lambda module, args, output: None)
    module.register_forward_hook(lambda module, args, kwargs, output: None, with_kwargs=True, always_call=True)
    module.register_full_backward_pre_hook(lambda module, grad_output: None)
    module.register_full_backward_hook(lambda module, grad_input, grad_output: None)
    return nullcontext()


def backward_steps(module):
    return hookline.on(module, "**", backward_before=lambda call: None, backward=lambda call: None)


cases = pytest.mark.parametrize("info", module_db, ids=[info.formatted_name for info in module_db])
modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


@pytest.mark.slow
@modes
@cases
def test_under_install_a_module_gives_what_it_gives_without(info, training):
    assert_same(outcomes(info, training, around=hookline.install), outcomes(info, training))


@pytest.mark.slow
@modes
@cases
def test_under_install_hooks_of_pytorchs_api_change_what_they_change_without(info, training):
    plain = outcomes(info, training, hooked=pytorchs_hooks)
    assert_same(outcomes(info, training, around=hookline.install, hooked=pytorchs_hooks), plain)


@pytest.mark.slow
@modes
@cases
def test_with_backward_hooks_only_the_order_of_sums_differs(info, training):
    close = lambda left, right: left.shape == right.shape and torch.allclose(left, right, rtol=1e-4, atol=1e-5)
    assert_same(outcomes(info, training, hooked=backward_steps), outcomes(info, training), close)
