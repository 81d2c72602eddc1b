"""A user's code, as type checkers see it. It is checked, not run."""

from collections.abc import Sequence
from typing import Any, assert_type

import torch
from torch import Tensor, nn

import hookline
from hookline import edits


def records(model: nn.Module, x: Tensor, where: hookline.Where = "**", keep: hookline.Keep = "stats") -> None:
    hookline.watch(model, keep=lambda tensor: tensor.mean())
    hookline.watch(model, keep=lambda tensor, call: (call.path, tensor.mean()))
    with hookline.watch(model, where, keep=keep, grads=True) as run:
        model(x).sum().backward()
    assert_type(run, hookline.Run)
    assert_type(hookline.watch(model).start(), hookline.Run)
    assert_type(hookline.summary(model, x), hookline.Run)
    assert_type(run["0"], hookline.CallRecord)
    assert_type(run["0", -1], hookline.CallRecord)
    assert_type(run["0"].path, str)
    assert_type(run["0"].seconds, float)
    assert_type(run["0"].parent, hookline.CallRecord | None)
    assert_type(run["0"].inputs, list[hookline.TensorInfo])
    assert_type(run["0"].named_outputs, dict[str, hookline.TensorInfo])
    assert_type(run.find("**"), list[hookline.CallRecord])
    assert_type(run.gather(), hookline.Run | None)


def figures(run: hookline.Run) -> None:
    assert_type(run["0"].output.mean, float)
    assert_type(run["0"].output.std, float)
    assert_type(run["0"].output.absmax, float)
    assert_type(run["0"].output.nan, int)
    assert_type(run["0"].output.shape, tuple[int, ...])
    assert_type(run["0"].output.dtype, torch.dtype)
    assert_type(run["0"].output.stats, hookline.Stats | None)
    assert_type(run["0"].output.grad, hookline.TensorInfo | None)
    assert_type(run["0"].output.part, hookline.Part | None)
    assert_type(run["lstm"].output[0].mean, float)
    assert_type(run["encoder"].output["logits"].absmax, float)
    largest(run["0"].output)


def largest(info: hookline.TensorInfo) -> float:
    return info.absmax


def hooks(model: nn.Module) -> None:
    def scale(call: hookline.Call) -> None:
        call.output = 2 * call.output

    handle = hookline.on(model, nn.Linear, after=scale)
    assert_type(handle, hookline.Handle)
    with hookline.everywhere(after=scale), handle:
        pass
    assert_type(hookline.hooks(model), hookline.Hooks)
    assert_type(hookline.select(model, "**"), hookline.Selection)


def changes(model: nn.Module, x: Tensor, change: hookline.Change, when: hookline.When, skip: hookline.Skip) -> None:
    assert_type(hookline.edit(model, "0", output=edits.zero(), at=(slice(None), -1)), hookline.Handle)
    assert_type(hookline.edit(model, "0", output=change, when=when), hookline.Handle)
    assert_type(hookline.edit(model, "0", skip=skip), hookline.Handle)
    assert_type(edits.zero() >> edits.add(1.0), edits.chain)

    def metric(output: Any, batch: Any) -> float:
        return float(output.mean())

    swept = hookline.sweep(model, "*", edits.zero(), metric, [x])
    assert_type(swept, hookline.Sweep)
    assert_type(next(iter(swept)), hookline.Cell)
    assert_type(swept["0"], hookline.Cell)


def checks(model: nn.Module, x: Tensor, run: hookline.Run) -> None:
    found = hookline.check(model, x)
    assert_type(found, hookline.Findings)
    assert_type(found[0], hookline.Finding)
    assert_type(hookline.check(run), hookline.Findings)

    @hookline.rule("loud")
    def loud(evidence: hookline.Evidence) -> Sequence[hookline.Finding]:
        return [hookline.Finding(call.path, "loud") for call in evidence.run if call.output.absmax > 100]

    assert_type(loud, hookline.Rule)
    hookline.check(model, x, rules=[*hookline.RULES, loud])
    assert_type(hookline.guard(model), hookline.Handle)


def comparisons(model: nn.Module, x: Tensor, tolerances: hookline.Tolerances) -> None:
    found = hookline.diff(model, model, x, tolerances=tolerances)
    assert_type(found, hookline.Diff)
    assert_type(found[0], hookline.Pair)
    assert_type(found.culprit, hookline.Pair | None)
    assert_type(found[0].causes, tuple[hookline.Cause, ...])
    assert_type(found.weights, tuple[hookline.Weight, ...])
    assert_type(found[0].outputs, dict[str, hookline.Difference])
    assert_type(hookline.fingerprint(x), hookline.Fingerprint | None)


def sums(model: nn.Module, x: Tensor, rows: hookline.Rows) -> None:
    found = hookline.totals(model, x, "0", rows=rows, covariance=True, quantiles=True, top=8, part=(0, 2))
    assert_type(found, hookline.Totals)
    assert_type(found + found, hookline.Totals)
    assert_type(found["0"], hookline.Total)
    assert_type(found["0"].mean, Tensor)
    assert_type(found["0"].covariance, Tensor)
    assert_type(found["0"].quantile(0.5), float)
    assert_type(found["0"].histogram(), tuple[Tensor, Tensor])
    assert_type(found["0"].top, hookline.Top)
    assert_type(found["0"].top.positions, Tensor | None)


def costs(model: nn.Module, x: Tensor) -> None:
    found = hookline.profile(model, x, where="**")
    assert_type(found, hookline.Profile)
    assert_type(next(iter(found)), hookline.Cost)
    assert_type(found["0"], hookline.Cost)
    assert_type(next(iter(found)).forward, float)
