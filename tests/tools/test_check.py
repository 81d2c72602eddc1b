"""The three ways to run a check, what it gives back, and that it leaves nothing behind."""

import json
import random
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor, nn
from toys import Gives

import hookline
from hookline import RecordError, SelectionError
from hookline.testing import assert_unhooked, toy


def dead() -> nn.Sequential:
    """A toy of which the first rectifier is dead."""
    model = toy()
    with torch.no_grad():
        model[0].bias.fill_(-100)
    return model


def broken() -> nn.Sequential:
    """Three modules of which the second gives NaN."""
    return nn.Sequential(nn.Linear(4, 4), Gives(torch.log), nn.Linear(4, 4))


X = torch.linspace(-1, 1, 128).reshape(32, 4)


# At once


def test_with_inputs_it_runs_at_once_and_gives_findings() -> None:
    findings = hookline.check(dead(), X)

    assert [(each.rule, each.path) for each in findings.at_least("warning")] == [
        ("dead-units", "1"),
        ("constant-output", ""),
    ]


def test_a_healthy_model_gives_none() -> None:
    findings = hookline.check(toy(), X)

    assert len(findings) == 0
    assert not findings
    assert findings.worst is None


def test_the_run_holds_forward_and_backward() -> None:
    run = hookline.check(toy(), X).run

    assert [call.path for call in run] == ["", "0", "1", "2", "2.0", "2.1", "3"]
    assert all(call.output.grad is not None for call in run)


def test_inputs_go_by_name_too() -> None:
    model = Gives(lambda *, left, right: left @ right)

    assert hookline.check(model, left=torch.ones(2, 2), right=torch.ones(2, 2)).run[""].kwargs["right"].shape == (2, 2)


def test_the_loss_is_a_function_of_the_output() -> None:
    seen = []

    def loss(output: Tensor) -> Tensor:
        seen.append(output.shape)
        return output.sum()

    assert hookline.check(toy(), X, loss=loss).run["3"].output.grad.max == 1
    assert seen == [(32, 2)]


def test_without_one_it_is_the_mean_square() -> None:
    run = hookline.check(toy(), X).run
    output = run["3"].output

    assert output.grad.norm == pytest.approx(output.norm * 2 / output.count, rel=1e-5)


def test_where_says_which_modules_are_watched() -> None:
    assert hookline.check(toy(), X, where="2.*").run.modules.keys() == {"2.0", "2.1"}


def test_backward_runs_although_gradients_are_off() -> None:
    with torch.no_grad():
        assert hookline.check(toy(), X).run["0"].output.grad is not None


def test_model_without_gradients_runs_forward_only() -> None:
    findings = hookline.check(toy().requires_grad_(False), X)

    assert len(findings) == 0
    assert findings.run["3"].output.grad is None


# What it leaves as it was


def test_gradients_are_the_very_tensors_that_they_were() -> None:
    model = toy()
    model(X).sum().backward()
    model[0].bias.grad = None
    x = X.clone().requires_grad_()
    before = [parameter.grad for parameter in model.parameters()]
    copies = [None if each is None else each.clone() for each in before]
    hookline.check(model, x)

    after = [parameter.grad for parameter in model.parameters()]
    assert all(one is other for one, other in zip(before, after, strict=True))
    assert all(one is None or torch.equal(one, other) for one, other in zip(copies, after, strict=True))
    assert x.grad is None


def test_running_statistics_are_what_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    mean = model[1].running_mean
    hookline.check(model, X)

    assert model[1].running_mean is mean
    assert torch.equal(mean, torch.zeros(4))
    assert model[1].num_batches_tracked == 0


def test_buffer_replaced_by_the_forward_is_restored() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.count = self.count + 1
            return x * self.count

    model = Counts()
    before = model.count
    hookline.check(model, X)

    assert model.count is before
    assert before == 0


def test_an_embedding_that_bounds_its_rows_keeps_them() -> None:
    model = nn.Embedding(9, 4, max_norm=0.01)
    before = model.weight.detach().clone()
    hookline.check(model, torch.arange(9))

    assert torch.equal(model.weight, before)


def test_random_generators_stand_where_they_stood() -> None:
    def draws(x: Tensor) -> Tensor:
        return x * torch.rand(1) * random.random() * numpy.random.rand()

    states = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].copy()
    hookline.check(Gives(draws), X)

    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (numpy.random.get_state()[1] == states[2]).all()


def test_modes_stay() -> None:
    model = toy().train()
    model[2].eval()
    hookline.check(model, X)

    assert [module.training for module in model.modules()] == [True, True, True, False, False, False, True]


def test_no_hook_is_left_on_modules_or_parameters() -> None:
    model = toy()
    hookline.check(model, X)

    assert_unhooked(model, torch_hooks=True)
    assert len(hookline.hooks(model)) == 0


def test_no_hook_is_left_on_optimizers() -> None:
    from torch.optim import optimizer

    hookline.check(toy(), X)

    assert not optimizer._global_optimizer_pre_hooks
    assert not optimizer._global_optimizer_post_hooks


def test_a_model_that_raised_is_left_as_it_was() -> None:
    def fail(x: Tensor) -> Tensor:
        raise ValueError("no")

    model = nn.Sequential(nn.BatchNorm1d(4), Gives(fail))
    hookline.check(model, X)

    assert_unhooked(model, torch_hooks=True)
    assert model[0].num_batches_tracked == 0


# What the model raises


def test_what_the_model_raises_is_a_finding_and_not_raised() -> None:
    findings = hookline.check(nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 5)), X)

    assert findings.worst == "error"
    assert [(each.rule, each.path) for each in findings.at_least("warning")] == [("raised", "1")]
    assert isinstance(findings.error, RuntimeError)


def test_what_was_found_before_an_error_is_not_lost() -> None:
    findings = hookline.check(nn.Sequential(nn.Linear(4, 4), Gives(torch.log), nn.Linear(5, 5)), X)

    assert {(each.rule, each.path) for each in findings.at_least("warning")} == {
        ("nonfinite-output", "1"),
        ("raised", "2"),
    }


def test_an_error_of_the_loss_is_a_finding() -> None:
    def loss(output: Tensor) -> Tensor:
        raise ValueError("no such loss")

    findings = hookline.check(toy(), X, loss=loss)

    assert [str(each) for each in findings] == [
        "error: (the model): raised outside its forward: ValueError: no such loss [raised]"
    ]


def test_an_interrupt_goes_on() -> None:
    def stop(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    model = nn.Sequential(Gives(stop))
    with pytest.raises(KeyboardInterrupt):
        hookline.check(model, X)
    assert_unhooked(model)


def test_inputs_that_do_not_fit_are_a_finding_too() -> None:
    assert isinstance(hookline.check(toy(), X, X).error, TypeError)


# A block


def test_without_inputs_it_is_a_block_around_the_users_steps() -> None:
    model = dead()
    with hookline.check(model) as findings:
        for _ in range(3):
            model(X).sum().backward()

    assert ("dead-units", "1") in {(each.rule, each.path) for each in findings}
    assert len(findings.run.calls_of("1")) == 3


def test_what_the_steps_do_stays_done() -> None:
    model = toy()
    with hookline.check(model):
        model(X).sum().backward()

    assert model[0].weight.grad is not None


def test_an_exception_goes_on_and_the_findings_are_there() -> None:
    model = broken()
    with pytest.raises(ValueError, match="enough"), hookline.check(model) as findings:
        model(X)
        raise ValueError("enough")

    assert {(each.rule, each.path) for each in findings.at_least("warning")} == {
        ("nonfinite-output", "1"),
        ("raised", ""),
    }
    assert isinstance(findings.error, ValueError)
    assert_unhooked(model)


def test_findings_that_are_not_there_yet_are_an_error_not_nothing() -> None:
    findings = hookline.check(toy())

    for read in (bool, len, list, lambda each: each.worst, lambda each: each.run, lambda each: each.to_dict()):
        with pytest.raises(RecordError, match="nothing was checked yet"):
            read(findings)
    assert repr(findings) == "<Findings of a check that has not run yet>"


def test_nor_are_they_there_inside_of_the_block() -> None:
    with hookline.check(toy()) as findings, pytest.raises(RecordError, match="nothing was checked yet"):
        bool(findings)


def test_a_check_that_has_run_is_no_block() -> None:
    for findings in (hookline.check(toy(), X), hookline.check(toy(), X)):
        with pytest.raises(RecordError, match="this check has run already"), findings:
            pass


def test_a_block_is_entered_once() -> None:
    model = toy()
    findings = hookline.check(model)
    with findings:
        model(X)
    with pytest.raises(RecordError, match="this check has run already"), findings:
        pass


def test_an_empty_block_finds_nothing() -> None:
    with hookline.check(toy()) as findings:
        pass

    assert list(findings) == []


def test_only_steps_of_optimizers_in_the_block_count() -> None:
    model = toy()
    with hookline.check(model) as findings:
        model(X).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.0).step()

    assert findings.of("unchanged-weight") == []


# A run


def test_a_run_is_judged_without_its_model() -> None:
    model = broken()
    with hookline.watch(model, inputs="stats", grads=True) as run:
        model(X)
    del model

    (found,) = hookline.check(run)
    assert (found.rule, found.path, found.call, found.severity) == ("nonfinite-output", "1", 0, "error")
    assert found.evidence["nan"] == run["1"].output.nan


@pytest.mark.parametrize("make", [broken, dead])
def test_a_saved_run_gives_what_the_run_gives(make: object, tmp_path: Path) -> None:
    model = make()  # type: ignore[operator]
    with hookline.watch(model, inputs="stats", grads=True) as run:
        model(X).sum().backward()
    run.save(tmp_path / "run")

    findings = hookline.check(run)
    assert findings
    assert hookline.check(hookline.load(tmp_path / "run")).to_dict() == findings.to_dict()


def test_a_saved_run_of_a_check_tells_what_needs_the_run_alone(tmp_path: Path) -> None:
    findings = hookline.check(broken(), X)
    findings.run.save(tmp_path / "run")

    again = hookline.check(hookline.load(tmp_path / "run"))
    (one,), (other,) = again.of("nonfinite-output"), findings.of("nonfinite-output")
    assert (one.path, one.call, one.severity, one.evidence) == (other.path, other.call, other.severity, other.evidence)


@pytest.mark.parametrize("keep", ["shape", "stats", "tensor", "copy"])
def test_whatever_a_run_kept_it_can_be_judged(keep: str) -> None:
    model = broken()
    with hookline.watch(model, keep=keep, grads=True) as run:
        model(X).sum().backward()

    assert bool(hookline.check(run)) is (keep == "stats")


def test_without_statistics_of_inputs_the_first_producer_is_named() -> None:
    model = broken()
    with hookline.watch(model) as run:
        model(X)

    assert [each.path for each in hookline.check(run)] == ["1"]


def test_a_run_takes_no_inputs() -> None:
    with hookline.watch(toy()) as run:
        pass
    with pytest.raises(hookline.ArgumentError, match="takes no inputs"):
        hookline.check(run, X)


def test_where_that_picks_nothing_is_an_error() -> None:
    with pytest.raises(SelectionError):
        hookline.check(toy(), X, where="nosuch.*")


# Rules and findings


@hookline.rule("wide", severity="note", advice="Make it narrower.")
def wide(evidence: hookline.Evidence):
    """Layers of more than four units."""
    for path, module in (evidence.modules or {}).items():
        if isinstance(module, nn.Linear) and module.out_features > 4:
            yield hookline.Finding(path, "is wide", evidence={"units": module.out_features})
        if isinstance(module, nn.Linear) and module.out_features < 3:
            yield hookline.Finding(path, "is narrow", severity="error", advice="Make it wider.")


def test_a_rule_of_the_users_is_asked() -> None:
    findings = hookline.check(toy(), X, rules=[*hookline.RULES, wide])

    assert [(each.rule, each.path, each.severity, each.advice) for each in findings] == [
        ("wide", "3", "error", "Make it wider."),
        ("wide", "0", "note", "Make it narrower."),
        ("wide", "2.0", "note", "Make it narrower."),
    ]


def test_only_the_rules_given_are_asked() -> None:
    assert {each.rule for each in hookline.check(dead(), X, rules=[wide])} == {"wide"}


def test_a_rule_that_raises_is_named() -> None:
    @hookline.rule("faulty")
    def faulty(evidence: hookline.Evidence):
        raise KeyError("x")

    model = toy()
    with pytest.raises(KeyError) as caught:
        hookline.check(model, X, rules=[faulty])
    assert caught.value.__notes__ == ["hookline: in the rule 'faulty' of a check"]
    assert_unhooked(model)


def test_an_unknown_severity_is_an_error() -> None:
    with pytest.raises(hookline.ArgumentError, match="severity must be 'note', 'warning' or 'error', not 'fatal'"):
        hookline.rule("x", severity="fatal")  # type: ignore[arg-type]


def test_names_of_rules_are_unique_and_every_rule_has_advice_and_words() -> None:
    names = [rule.name for rule in hookline.RULES]

    assert len({*names}) == len(names)
    assert all(rule.advice and rule.function.__doc__ for rule in hookline.RULES)


def test_findings_stand_worst_first_and_are_true_above_a_note() -> None:
    findings = hookline.check(toy(), X, rules=[wide])

    assert [each.severity for each in findings] == ["error", "note", "note"]
    assert findings.worst == "error"
    assert bool(findings)
    assert len(findings.at_least("note")) == 3
    assert findings[0].path == "3"
    assert [each.path for each in findings[1:]] == ["0", "2.0"]


def test_notes_alone_are_false() -> None:
    findings = hookline.check(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4)), X, rules=[wide])

    assert len(findings) == 1
    assert not findings


def test_findings_are_one_json_document() -> None:
    document = json.loads(json.dumps(hookline.check(broken(), X).to_dict(), allow_nan=False))

    assert document["model"] == "Sequential"
    assert document["worst"] == "error"
    assert document["findings"][0]["rule"] == "nonfinite-output"
    assert document["findings"][0]["path"] == "1"


def test_figures_that_are_not_finite_are_text_in_json() -> None:
    finding = hookline.Finding("", "x", evidence={"largest": float("inf"), "all": [float("nan"), 1]})

    assert finding.to_dict()["evidence"] == {"largest": "inf", "all": ["nan", 1]}


# Nothing found


def test_print_of_nothing_found_lists_what_was_looked_at() -> None:
    text = " ".join(repr(hookline.check(toy(), X)).split())

    assert "nothing found looked at 7 calls of 7 modules, gradients of 6 of 6 parameters" in text
    assert all(rule.name in text for rule in hookline.RULES)


def test_what_could_not_be_judged_is_said() -> None:
    with torch.no_grad(), hookline.check(toy().eval()) as findings:
        toy()
    assert findings.looked[-1] == "not judged: updates, since no optimizer stepped"
    assert "not judged: anything, since no module was called" in findings.looked


def test_recorded_run_says_what_it_does_not_hold() -> None:
    with hookline.watch(toy(), inputs="stats") as run:
        pass
    model = toy()
    with hookline.watch(model, inputs="stats") as run:
        model(X)

    looked = hookline.check(run).looked
    assert any("which a recorded run does not hold" in line for line in looked)
    assert "not judged: gradients, torch.relu and F.relu6, since no backward pass ran" in looked


def test_optimizer_steps_are_counted_in_what_was_looked_at() -> None:
    model = toy()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with hookline.check(model) as findings:
        model(X).square().mean().backward()
        optimizer.step()

    assert "1 optimizer step" in findings.looked[0]


def test_module_without_parameters_is_not_said_to_have_some() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model.add_module("spare", nn.ModuleDict({"left": nn.Identity()}))
    model.forward = lambda x: model[0](x)

    (found,) = hookline.check(model, X).of("never-called")
    assert found.severity == "note"
    assert "parameter" not in f"{found.message} {found.advice}"


def test_weights_held_elsewhere_are_looked_for_only_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.checking.gather.held_elsewhere", pytest.fail)

    assert not hookline.check(toy(), X)
