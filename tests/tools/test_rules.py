"""What each rule finds, and what it leaves alone: one fact each, beside the planted faults and the healthy models."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint
from toys import Gives

import hookline
from hookline import Findings
from hookline.testing import toy

X = torch.linspace(-1, 1, 128).reshape(32, 4)


def told(findings: Findings, rule: str) -> list[tuple[str, str | None]]:
    return [(each.path, each.severity) for each in findings.of(rule)]


def gives(*functions: Any) -> nn.Sequential:
    return nn.Sequential(*map(Gives, functions))


class Held(nn.Module):
    """A module with children that a function of it and its input calls."""

    def __init__(self, forward: Any, **children: nn.Module) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.function = forward

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


# The first NaN or Inf


def test_those_that_pass_a_nan_on_are_not_named() -> None:
    findings = hookline.check(gives(torch.log, torch.exp, torch.tanh), X)

    assert told(findings, "nonfinite-output") == [("0", "error")]


def test_nor_are_the_containers_of_the_one_that_made_it() -> None:
    findings = hookline.check(nn.Sequential(nn.Sequential(gives(torch.log))), X)

    assert told(findings, "nonfinite-output") == [("0.0.0", "error")]


def test_a_container_whose_children_are_finite_is_named() -> None:
    model = Held(lambda self, x: self.inner(x).log(), inner=Gives(torch.tanh))

    assert told(hookline.check(model, X), "nonfinite-output") == [("", "error")]


def test_so_is_one_that_makes_it_before_it_calls_a_child() -> None:
    model = nn.Sequential(Held(lambda self, x: self.inner(x.log()), inner=Gives(torch.tanh)))

    assert told(hookline.check(model, X), "nonfinite-output") == [("0", "error")]


def test_two_that_made_one_each_are_both_named() -> None:
    model = Held(lambda self, x: self.a(x) + self.b(x), a=Gives(torch.log), b=Gives(torch.sqrt))

    assert told(hookline.check(model, X), "nonfinite-output") == [("a", "error"), ("b", "error")]


def test_which_call_of_a_module_made_it_is_told() -> None:
    model = Held(lambda self, x: self.step(self.step(self.step(x))), step=Gives(lambda x: (x - 1).log()))
    (found,) = hookline.check(model, torch.full((4,), 3.5)).of("nonfinite-output")

    assert (found.path, found.call) == ("step", 1)


def test_only_the_first_pass_that_broke_is_told_of() -> None:
    model = gives(torch.log, torch.sqrt)
    with hookline.check(model) as findings:
        for scale in (1.0, 0.5, -1.0):
            model(torch.full((4,), scale))

    assert [(each.path, each.call) for each in findings.of("nonfinite-output")] == [("1", 1)]


def test_a_mask_of_minus_infinity_in_an_argument_is_no_fault() -> None:
    mask = torch.full((4, 4), -math.inf).triu(1)

    assert not hookline.check(Gives(lambda x, mask: (x @ x.T + mask).softmax(-1)), torch.randn(4, 4), mask)


def test_minus_infinity_that_does_no_harm_is_a_note() -> None:
    findings = hookline.check(gives(lambda x: x.masked_fill(x < 0, -math.inf), torch.exp), X)

    assert told(findings, "nonfinite-output") == [("0", "note")]


def test_a_nan_that_is_put_out_of_the_way_is_a_warning() -> None:
    findings = hookline.check(gives(torch.log, torch.nan_to_num), X)

    assert told(findings, "nonfinite-output") == [("0", "warning")]


def test_a_module_with_a_nan_in_its_weight_is_told_of_once() -> None:
    model = toy()
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    findings = hookline.check(model, X)

    assert [(each.rule, each.path) for each in findings] == [("nonfinite-parameter", "0")]
    assert findings[0].evidence == {"parameter": "0.weight", "nan": 1, "inf": 0}


def test_an_argument_that_is_not_finite_is_named() -> None:
    (found,) = hookline.check(Gives(lambda a, *, b: a + b), torch.ones(2), b=torch.tensor([1.0, math.inf]))

    assert (found.rule, found.path, found.evidence["argument"]) == ("nonfinite-input", "", "b")


def test_a_broken_loss_of_a_broken_output_is_told_of_as_the_output() -> None:
    assert told(hookline.check(gives(torch.log), X), "nonfinite-loss") == []


def test_a_broken_gradient_after_a_broken_forward_is_a_consequence() -> None:
    model = nn.Sequential(nn.Linear(4, 4), *gives(torch.log))

    assert told(hookline.check(model, X), "nonfinite-gradient") == []


def test_a_parameter_whose_own_gradient_is_broken_is_named() -> None:
    class Rooted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.scale.sqrt()

    (found,) = hookline.check(nn.Sequential(nn.Linear(4, 4), Rooted()), X).of("nonfinite-gradient")
    assert (found.path, found.evidence["parameter"]) == ("1", "1.scale")


def test_child_is_named_where_container_had_the_same_inputs() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(gives(torch.sqrt)), nn.Linear(4, 4))
    for parameter in model[0].parameters():
        nn.init.zeros_(parameter)

    assert told(hookline.check(model, X), "nonfinite-gradient") == [("1.0.0", "error")]


def test_what_raised_inside_and_was_caught_is_a_note() -> None:
    def fail(x: Tensor) -> Tensor:
        raise ValueError("no")

    def caught(self: Any, x: Tensor) -> Tensor:
        try:
            return self.inner(x)
        except ValueError:
            return x

    assert told(hookline.check(Held(caught, inner=Gives(fail)), X), "raised") == [("inner", "note")]


@pytest.mark.parametrize(
    ("dtype", "value", "found"),
    [
        (torch.float16, 1e4, False),
        (torch.float16, 2e4, True),
        (torch.float32, 2e4, False),
        (torch.bfloat16, 2e37, True),
        (torch.float32, -2e37, True),
        (torch.float32, torch.finfo(torch.float32).min, False),  # as masks are made
    ],
)
def test_near_overflow_depends_on_the_dtype(dtype: torch.dtype, value: float, found: bool) -> None:
    model = Gives(lambda x: x)

    assert bool(told(hookline.check(model, torch.tensor([value, 1.0], dtype=dtype)), "near-overflow")) is found


# Activity


def test_few_values_say_nothing_about_a_unit() -> None:
    assert told(hookline.check(nn.ReLU(), torch.tensor([[1.0, -1.0]] * 63)), "dead-units") == []


def test_a_few_dead_units_are_a_note() -> None:
    x = torch.ones(64, 8)
    x[:, 2] = -1
    (found,) = hookline.check(nn.ReLU(), x).of("dead-units")

    assert (found.severity, found.evidence["dead"], found.evidence["units"]) == ("note", 1, 8)


def test_a_unit_that_is_active_in_one_of_many_batches_is_alive() -> None:
    model = nn.ReLU()
    with hookline.check(model) as findings:
        for number in range(10):
            model(torch.full((64, 4), 1.0 if number == 7 else -1.0))

    assert told(findings, "dead-units") == []


def test_leaky_units_are_not_asked() -> None:
    assert told(hookline.check(nn.LeakyReLU(), -torch.ones(128, 4)), "dead-units") == []


def test_a_saturated_activation_is_a_note_in_evaluation() -> None:
    model = nn.Sequential(nn.Tanh(), nn.Linear(4, 4))

    assert told(hookline.check(model.train(), X * 1e4), "saturated") == [("0", "warning")]
    assert told(hookline.check(model.eval(), X * 1e4), "saturated") == [("0", "note")]


def test_as_is_one_that_is_the_models_own_output() -> None:
    assert told(hookline.check(nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()), X * 1e5), "saturated") == [("1", "note")]


def test_a_softmax_that_is_sure_of_half_its_rows_is_fine() -> None:
    scores = torch.eye(4).repeat(8, 1) * torch.tensor([100.0, 0.0]).repeat(16)[:, None]
    model = nn.Sequential(nn.Softmax(dim=-1), nn.Linear(4, 4))

    assert told(hookline.check(model, scores), "collapsed-softmax") == []
    assert told(hookline.check(model, torch.eye(4).repeat(8, 1) * 100), "collapsed-softmax") == [("0", "warning")]


def test_the_dimension_of_a_softmax_counts() -> None:
    model = nn.Sequential(nn.Softmax(dim=0), nn.Linear(32, 4))
    scores = torch.zeros(4, 32)
    scores[0] = 100

    assert told(hookline.check(model, scores), "collapsed-softmax") == [("0", "warning")]


def test_a_constant_of_a_constant_input_is_fine() -> None:
    assert told(hookline.check(Gives(lambda x: x * 2), torch.ones(8, 4)), "constant-output") == []


def test_a_layer_that_starts_at_zero_is_a_note() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[0].bias)

    assert told(hookline.check(model, X), "constant-output") == [("0", "note")]


def test_a_head_that_starts_at_zero_is_a_note_whatever_its_bias() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    nn.init.zeros_(model[2].weight)

    assert told(hookline.check(model, X), "constant-output") == [("", "note")]


def test_as_is_one_that_gives_its_bias_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
    nn.init.zeros_(model[2].weight)
    nn.init.constant_(model[2].bias, -4.6)

    assert told(hookline.check(model, X), "constant-output") == [("2", "note")]


def test_another_layer_that_starts_at_zero_excuses_no_model() -> None:
    model = Held(lambda self, x: self.last((x + self.first(x)).mean(dim=0).expand_as(x)), first=nn.Linear(4, 4))
    model.last = nn.Linear(4, 4)
    nn.init.zeros_(model.first.weight)

    assert told(hookline.check(model, X), "constant-output") == [("", "warning")]


def test_a_module_called_by_itself_may_give_every_sample_the_same() -> None:
    places = nn.Parameter(torch.randn(4))
    model = nn.ModuleDict({"places": Gives(lambda x: places.expand(len(x), -1)), "body": nn.Linear(4, 2)})
    with hookline.check(model) as findings:
        model["body"](X + model["places"](X)).square().mean().backward()

    assert told(findings, "constant-output") == []


def test_equal_outputs_are_fine_for_equal_samples() -> None:
    assert told(hookline.check(toy(), torch.arange(4.0).repeat(8, 1)), "constant-output") == []


# Gradients


def linears(count: int, scale: float) -> nn.Sequential:
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(count)))
    for layer in model:
        nn.init.orthogonal_(layer.weight, gain=scale)
    return model


@pytest.mark.parametrize(
    ("scale", "rule"),
    [(0.1, "vanishing-gradient"), (1.0, None), (10.0, "exploding-gradient")],
)
def test_gradients_along_depth(scale: float, rule: str | None) -> None:
    findings = hookline.check(linears(8, scale), torch.randn(4, 8), loss=lambda output: output.sum())
    found = [each.rule for each in findings if each.rule.endswith("ing-gradient")]

    assert found == ([rule] if rule else [])


def test_one_layer_that_makes_all_the_difference_is_no_chain() -> None:
    model = linears(8, 0.9)
    with torch.no_grad():
        model[4].weight.mul_(1e-6)

    assert told(hookline.check(model, torch.randn(4, 8)), "vanishing-gradient") == []


def test_the_calls_of_a_cell_that_forgets_are_a_note() -> None:
    def unroll(self: Any, x: Tensor) -> Tensor:
        for _ in range(12):
            x = self.cell(x)
        return x

    model = Held(unroll, cell=nn.Linear(8, 8))
    nn.init.orthogonal_(model.cell.weight, gain=0.1)

    assert told(hookline.check(model, torch.randn(4, 8)), "vanishing-gradient") == [("cell", "note")]


def test_what_is_detached_is_an_error_and_what_is_left_out_a_warning() -> None:
    def detached(self: Any, x: Tensor) -> Tensor:
        return self.last(self.main(x) + self.last(self.side(x).detach()))

    def left_out(self: Any, x: Tensor) -> Tensor:
        self.side(x)
        return self.last(self.main(x))

    for forward, severity in ((detached, "error"), (left_out, "warning")):
        layers = {name: nn.Linear(4, 4) for name in ("main", "side", "last")}
        assert told(hookline.check(Held(forward, **layers), X), "no-gradient") == [("side", severity)]


def test_the_outermost_module_without_any_gradient_is_named() -> None:
    side = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 4))
    model = Held(lambda self, x: (self.main(x), self.side(x))[0], main=nn.Linear(4, 4), side=side)
    (found,) = hookline.check(model, X).of("no-gradient")

    assert (found.path, found.evidence["count"]) == ("side", 4)


def test_frozen_parameters_are_not_missed() -> None:
    model = toy()
    model[0].requires_grad_(False)

    assert list(hookline.check(model, X)) == []


def test_without_a_backward_pass_no_gradient_is_missed() -> None:
    model = toy()
    with hookline.check(model) as findings:
        model(X)

    assert list(findings) == []


def test_a_vector_without_a_gradient_is_a_note() -> None:
    class Scaled(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.scale = nn.Parameter(torch.ones(4))

    assert told(hookline.check(nn.Sequential(Scaled()), X), "no-gradient") == [("0", "note")]


def test_layers_that_are_frozen_from_the_first_on_are_meant_to_be() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    model[:2].requires_grad_(False)

    assert told(hookline.check(model, X), "frozen-parameter") == []


# Modules


def test_layers_that_were_not_called_are_told_of_together() -> None:
    layers = nn.ModuleList(Held(lambda self, x: x, spare=nn.Identity()) for _ in range(5))
    model = nn.Sequential(*layers)
    (found,) = hookline.check(model, X).of("never-called")

    assert found.path == "0.spare"
    assert found.message == "was never called, nor were 4 like it"
    assert found.severity == "note"


def test_a_module_whose_weight_is_used_without_its_call_is_fine() -> None:
    model = Held(lambda self, x: nn.functional.linear(x, self.inner.weight, self.inner.bias), inner=nn.Linear(4, 4))

    assert told(hookline.check(model, X), "never-called") == []


def test_an_expert_that_was_not_chosen_is_a_note() -> None:
    experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    model = Held(lambda self, x: self.experts[0](x), experts=experts)

    assert told(hookline.check(model, X), "never-called") == [("experts.1", "note")]


def test_a_frozen_batch_norm_is_a_note() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].eval()

    assert told(hookline.check(model, X), "wrong-mode") == [("1", "note")]


def test_dropout_of_nothing_has_no_mode() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.0)).eval()
    model[1].train()

    assert told(hookline.check(model, X), "wrong-mode") == []


def test_a_backward_in_evaluation_without_a_step_is_fine() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).eval()

    assert told(hookline.check(model, X), "wrong-mode") == []


def test_batch_norm_of_two_values_is_not_one() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))

    assert told(hookline.check(model, X[:2]), "one-value-norm") == []


def test_a_batch_norm_of_one_value_is_found_in_a_run_too() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="more than 1 value"), hookline.watch(model) as run:
        model(X[:1])

    assert told(hookline.check(run), "one-value-norm") == [("1", "error")]


def test_a_wider_dtype_is_a_note_and_autocast_is_fine() -> None:
    half = nn.Sequential(nn.Linear(4, 4).bfloat16(), Gives(Tensor.float))
    assert told(hookline.check(half, X.bfloat16()), "dtype-changed") == [("1", "note")]

    def cast(self: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.inner(x)

    assert told(hookline.check(Held(cast, inner=nn.Linear(4, 4)), X), "dtype-changed") == []


def test_a_module_that_gives_the_dtype_of_its_parameters_is_fine() -> None:
    model = nn.Sequential(Gives(lambda x: x), nn.Embedding(9, 4).double())

    assert told(hookline.check(model, torch.arange(9)), "dtype-changed") == []


# Training


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, *, count: int = 2) -> Findings:
    with hookline.check(model) as findings:
        for _ in range(count):
            optimizer.zero_grad()
            model(X).square().sum().backward()
            optimizer.step()
    return findings


def test_a_learning_rate_of_zero_is_a_note_in_the_first_step() -> None:
    model = toy()
    optimizer = SGD(model.parameters(), lr=0.0)

    assert {severity for _, severity in told(steps(model, optimizer, count=1), "unchanged-weight")} == {"note"}
    assert {severity for _, severity in told(steps(model, optimizer), "unchanged-weight")} == {"warning"}


def test_gradients_that_add_up_without_a_step_are_a_note() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with hookline.check(model) as findings:
        for _ in range(3):
            model(X).square().mean().backward()

    assert told(findings, "unchanged-weight") == [("", "note")]


def test_a_few_gradients_without_a_step_say_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with hookline.check(model) as findings:
        for _ in range(2):
            model.zero_grad()
            model(X).square().mean().backward()

    assert told(findings, "unchanged-weight") == []


def test_optimizers_of_other_models_beside_the_models_own_do_not_count() -> None:
    model, other = toy(), toy()
    optimizer, others = SGD(model.parameters(), lr=1e-3), SGD(other.parameters(), lr=1e-3)
    with hookline.check(model) as findings:
        for each, its in ((model, optimizer), (other, others)):
            each(X).sum().backward()
            its.step()

    assert list(findings) == []


def test_the_ratio_of_update_to_weight_is_told() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    optimizer = SGD(model.parameters(), lr=3.0)
    with hookline.check(model) as findings:
        model[0].weight.grad = torch.ones(4, 4)
        optimizer.step()

    (found,) = findings.of("large-update")
    assert found.evidence["ratio"] == pytest.approx(3.0)
    assert found.evidence["learning_rate"] == 3.0


def test_a_weight_that_starts_at_zero_may_move_as_far_as_it_likes() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    nn.init.zeros_(model[0].weight)
    optimizer = SGD(model.parameters(), lr=3.0)
    with hookline.check(model) as findings:
        model[0].weight.grad = torch.ones(4, 4)
        optimizer.step()

    assert told(findings, "large-update") == []


def test_a_rectifier_in_place_is_no_fault() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4))

    assert list(hookline.check(model, X)) == []


def test_in_place_change_is_found_behind_a_checkpointed_block() -> None:
    def add(x: Tensor) -> Tensor:
        x += 1
        return x

    again = Held(lambda self, x: checkpoint(self.inner, x, use_reentrant=False), inner=nn.Linear(4, 4))
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), Gives(add), again)
    with pytest.raises(RuntimeError, match="inplace"), hookline.check(model, where=["1", "2", "3.inner"]) as findings:
        loss = model(X).sum()  # which keeps the graph, and so the tensor, until the check has ended
        loss.backward()

    assert told(findings, "changed-in-place") == [("1", "error")]


def test_and_where_nobody_keeps_the_graph() -> None:
    def add(x: Tensor) -> Tensor:
        x += 1
        return x

    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), Gives(add))
    with pytest.raises(RuntimeError, match="inplace"), hookline.check(model) as findings:
        model(X).sum().backward()

    assert told(findings, "changed-in-place") == [("1", "error")]
