"""Backward hooks that do nothing, on random programs of views and in-place operations: the loss and gradients of the model alone."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import hookline


class Program(nn.Module):
    """Runs operations on a pool of tensors that begins with its arguments; gives the last of them."""

    def __init__(self, operations, outputs):
        super().__init__()
        self.operations = operations
        self.outputs = outputs
        self.weight = nn.Parameter(torch.tensor([1.5, -0.5, 2.0, 0.7], dtype=torch.double))

    def forward(self, *args):
        pool = list(args)
        for name, i, j in self.operations:
            made = OPERATIONS[name](pool[i % len(pool)], pool[j % len(pool)], self.weight)
            if made is not None:
                pool.append(made)
        outputs = [pool[-1 - 2 * place % len(pool)] for place in range(self.outputs)]
        return outputs[0] if self.outputs == 1 else tuple(outputs)


OPERATIONS = {
    "multiply": lambda x, y, weight: x * weight[: x.shape[-1]],
    "sum": lambda x, y, weight: x.sum() + y,
    "square": lambda x, y, weight: x**2,
    "view": lambda x, y, weight: x.unsqueeze(0).squeeze(0),
    "slice": lambda x, y, weight: x[..., 1:] if x.shape[-1] > 1 else x,
    "row": lambda x, y, weight: x[0] if x.dim() > 1 else x,
    "transpose": lambda x, y, weight: x.t() if x.dim() <= 2 else x,
    "multiply in place": lambda x, y, weight: nothing(x.mul_(weight[0])),
    "add in place": lambda x, y, weight: nothing(x.add_(y.sum())),
    "sine in place": lambda x, y, weight: nothing(x.sin_()),
    "zero in place": lambda x, y, weight: nothing(x.zero_()),
    "set in place": lambda x, y, weight: x.__setitem__((..., 0), y.sum() * 0.5),
}
FORMS = {
    "leaf": lambda leaf, whole: leaf,
    "whole": lambda leaf, whole: whole,
    "columns": lambda leaf, whole: whole[:, 1:],
    "transposed": lambda leaf, whole: whole.t(),
    "row": lambda leaf, whole: whole[1],
    "flat": lambda leaf, whole: whole.view(-1),
}


def nothing(_):
    return None


def outcome(program, forms, outputs, afterwards, *, hooked):
    """The loss and every gradient, or the error that autograd has for such a program."""
    torch.manual_seed(0)
    leaves = [torch.randn(3, 4, dtype=torch.double, requires_grad=True) for _ in forms]
    wholes = [leaf * 1.3 for leaf in leaves]
    args = [FORMS[form](leaf, whole) for form, leaf, whole in zip(forms, leaves, wholes, strict=True)]
    if "same memory" in afterwards and len(args) > 1:
        args[1] = args[0].view(args[0].shape)
    model = Program(program, outputs)
    if hooked:
        hookline.on(model, "", backward_before=lambda call: None, backward=lambda call: None)
    try:
        before = sum((whole**2).sum() for whole in wholes) if "used before" in afterwards else 0
        given_back = model(*args)
        made = [given_back] if outputs == 1 else list(given_back)
        if "first output in place" in afterwards:
            made[0].mul_(2)
        if "last output in place" in afterwards:
            made[-1].add_(made[0].sum())
        loss = sum((tensor**3).sum() for tensor in made) + before
        if "inputs used after" in afterwards:
            loss = loss + sum(whole.cos().sum() for whole in wholes)
        loss.backward()
    except RuntimeError as error:
        return str(error)
    return [loss.detach(), *(leaf.grad for leaf in leaves), model.weight.grad]


numbers = st.integers(0, 8)
programs = st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), numbers, numbers), min_size=1, max_size=5)
after = st.sets(
    st.sampled_from(
        ("same memory", "used before", "first output in place", "last output in place", "inputs used after")
    ),
    max_size=2,
)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs, st.lists(st.sampled_from(sorted(FORMS)), min_size=1, max_size=2), st.integers(1, 2), after)
def test_loss_and_gradients_are_what_they_are_without(program, forms, outputs, afterwards):
    plain = outcome(program, forms, outputs, afterwards, hooked=False)
    got = outcome(program, forms, outputs, afterwards, hooked=True)
    if isinstance(plain, str):
        return  # autograd refuses the program itself
    assert not isinstance(got, str), got
    for ours, theirs in zip(got, plain, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.allclose(ours, theirs)
