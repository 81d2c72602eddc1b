"""HookDict: a plan is dropped by whatever changes the order or the hooks."""

import pytest
import torch
from torch import nn

import hookline

X = torch.ones(2)


@pytest.fixture
def module():
    with hookline.install():
        yield nn.Identity()


def test_move_to_end_changes_the_order_of_hooks(module):
    first = module.register_forward_hook(lambda module, args, output: output + 1)
    module.register_forward_hook(lambda module, args, output: output * 2)
    assert torch.equal(module(X), 2 * (X + 1))
    module._forward_hooks.move_to_end(first.id)
    assert torch.equal(module(X), 2 * X + 1)


def test_a_dict_made_of_its_type_is_a_dict_of_its_own(module):
    module.register_forward_hook(lambda module, args, output: output + 1)
    made = type(module._forward_hooks)()
    made[0] = lambda module, args, output: output + 2
    assert torch.equal(module(X), X + 1)
    module._forward_hooks = made
    assert torch.equal(module(X), X + 2)


def test_a_module_without_hooks_has_a_plan_after_its_first_call(module):
    module(X)
    assert module._forward_hooks.wiring.plan is not None


def test_a_hook_registered_after_a_plan_was_made_has_one_after_the_next_call(module):
    module(X)
    module.register_forward_hook(lambda module, args, output: output + 1)
    assert torch.equal(module(X), X + 1)
    assert module._forward_hooks.wiring.plan is not None
