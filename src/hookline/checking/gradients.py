"""Rules on gradients that vanish or explode with depth, and on those that are missing."""

from collections.abc import Iterator
from itertools import pairwise
from math import hypot, inf, prod

from hookline.checking.evidence import (
    Evidence,
    ParameterFacts,
    broken,
    by_path,
    floating,
    is_below,
    passes,
    same,
    starred,
)
from hookline.checking.finding import Finding, Severity, rule
from hookline.record.record import CallRecord, Run, TensorInfo

SMALLER, LARGER = 1e-5, 1e4
MUCH_LARGER = 1e6  # from one training step to a later one
ENORMOUS = 1e10  # times the elements of a parameter, or 1
RECURRENT = ("RNN", "LSTM", "GRU")
SHORTEST = 4  # layers in a chain, or parameters alike
MOSTLY = 0.75


@rule(
    "vanishing-gradient",
    advice="The first layers learn almost nothing. Use another activation or initialization, normalization, or skip "
    "connections.",
)
def vanishing_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Gradients that shrink by 1e5 or more from the last to the first of a chain of repeated layers, at most of them
    and not at one alone. A note along the calls of one module, such as a recurrent cell."""
    for calls, norms in _graded_chains(evidence.run):
        ratios = _steps(norms)
        ratio, gentle = prod(ratios), prod(ratios) / min(ratios)
        if gentle <= SMALLER and sum(step < 1 for step in ratios) >= MOSTLY * len(ratios):
            fades = calls[0].path == calls[-1].path  # a recurrent cell may forget early inputs and still learn
            yield _along(calls, norms, ratio, severity="note" if fades else None)


@rule(
    "exploding-gradient",
    advice="Clip the gradient norm, and check the scale of the weights. An initialization with a spectral norm near 1, "
    "normalization or a shorter sequence help.",
)
def exploding_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Gradients that grow by 1e4 or more from the last to the first of a chain of repeated layers, at most of them and
    not at one alone, or through the time steps of a recurrent layer. Also gradients that grow by 1e6 from one training
    step to a later one, or to 1e10 times a parameter."""
    for calls, norms in _graded_chains(evidence.run):
        ratios = _steps(norms)
        ratio, gentle = prod(ratios), prod(ratios) / max(ratios)
        if gentle >= LARGER and sum(step > 1 for step in ratios) >= MOSTLY * len(ratios):
            yield _along(calls, norms, ratio)
    yield from _through_time(evidence)
    yield from _over_training(evidence)
    yield from _enormous(evidence)


def _through_time(evidence: Evidence) -> Iterator[Finding]:
    """Recurrent layers (nn.RNN, nn.LSTM, nn.GRU) whose weights got gradients far above what their outputs and the
    gradients of the outputs add up to over all time steps."""
    for path, calls in by_path(evidence.run, lambda call: call.type in RECURRENT).items():
        own = [facts.largest_gradient for facts in evidence.below(path).values() if facts.largest_gradient]
        whole = max((_most(call) for call in calls), default=0.0)
        ratio = max(own, default=0.0) / whole if whole else 0.0
        if LARGER <= ratio < inf:
            message = f"the gradient of its weights is {ratio:.1e} times what its outputs' gradients account for"
            yield Finding(path, message, evidence={"ratio": ratio, "largest": max(own)})


def _enormous(evidence: Evidence) -> Iterator[Finding]:
    """The parameter with the largest gradient for its size, from 1e10 times on: no loss scale is that large."""
    ratios: dict[str, float] = {}
    for name, facts in (evidence.parameters or {}).items():
        size = max(1.0, (facts.norm or 0.0) / max(1, facts.parameter.numel()) ** 0.5)
        ratio = (facts.largest_gradient or 0.0) / size
        if ENORMOUS <= ratio < inf:
            ratios[name] = ratio
    if ratios:
        name = max(ratios, key=ratios.__getitem__)
        facts = (evidence.parameters or {})[name]
        message = f"the gradient of its {name.rpartition('.')[2]} reaches {facts.largest_gradient:.2g}"
        yield Finding(facts.path, message, evidence={"parameter": name, "largest": facts.largest_gradient})


def _most(call: CallRecord) -> float:
    """The largest possible element of a recurrent weight's gradient if no time step multiplies it: the gradient of the
    output times the input, or the output, added up over all time steps."""
    graded = [_norm_of(info) for info in call.outputs]
    values = [info.stats.absmax for info in (*call.inputs, *call.outputs) if info.stats is not None]
    steps = max((max(info.shape[:2], default=1) for info in call.outputs), default=1)
    return hypot(*graded) * max(values, default=0.0) * steps


def _norm_of(info: TensorInfo) -> float:
    grad = info.grad
    return 0.0 if grad is None or grad.stats is None or broken(grad) else grad.stats.norm


def _over_training(evidence: Evidence) -> Iterator[Finding]:
    norms = [norm for norm in evidence.norms or () if 0 < norm < inf]
    if norms and max(norms) >= MUCH_LARGER * norms[0]:
        at = (evidence.norms or ()).index(max(norms))
        message = f"the norm of all gradients grew from {norms[0]:.3g} to {max(norms):.3g} by step {at}"
        yield Finding("", message, evidence={"first": norms[0], "largest": max(norms), "step": at})


@rule(
    "exploding-activation",
    advice="Each time step multiplies the state of the one before. Use tanh instead of relu, an LSTM or GRU, a "
    "recurrent weight with a spectral norm near 1 (nn.init.orthogonal_), normalization, or a shorter sequence.",
)
def exploding_activation(evidence: Evidence) -> Iterator[Finding]:
    """The output of a recurrent layer, or of a module called repeatedly in one forward, that grows by 1e4 or more from
    the first time step or call to the last."""
    for path, growth in (evidence.growth or {}).items():
        if growth >= LARGER:
            message = f"its output grows by a factor of {growth:.1e} from the first time step to the last"
            yield Finding(path, message, evidence={"growth": growth})
    told: set[str] = set()
    for calls, norms in _repeated(evidence.run):
        ratios = [after / before for before, after in pairwise(norms)]
        gentle = prod(ratios) / max(ratios)
        if calls[0].path not in told and gentle >= LARGER and sum(step > 1 for step in ratios) >= MOSTLY * len(ratios):
            told.add(calls[0].path)
            message = f"its output grows by a factor of {prod(ratios):.1e} over {len(calls)} calls in one forward"
            figures = {"first": norms[0], "last": norms[-1], "calls": len(calls)}
            yield Finding(calls[0].path, message, call=calls[0].index, evidence=figures)


def _repeated(run: Run) -> Iterator[tuple[list[CallRecord], list[float]]]:
    """The calls of one module inside one call, and the norms of their outputs."""
    groups: dict[tuple[int, str], list[tuple[CallRecord, float]]] = {}
    for call in run.calls:
        stats = call.outputs[0].stats if call.error is None and floating(call.outputs[:1]) else None
        if call.parent is not None and stats is not None and 0 < stats.norm < inf:
            groups.setdefault((call.parent.number, call.path), []).append((call, stats.norm))
    for found in groups.values():
        if len(found) >= SHORTEST:
            yield [call for call, _ in found], [norm for _, norm in found]


def _along(calls: list[CallRecord], norms: list[float], ratio: float, *, severity: Severity | None = None) -> Finding:
    """The finding about a chain of calls whose gradients shrink or grow."""
    first, last = calls[0], calls[-1]
    other = f"its call {last.index}" if first.path == last.path else last.path
    figures = {"first": norms[0], "last": norms[-1], "calls": len(calls), "from": other}
    message = f"the gradient of its output is {ratio:.1e} times that of {other}, the last of {len(calls)} calls"
    return Finding(first.path, message, call=first.index, evidence=figures, severity=severity)


def _graded_chains(run: Run) -> Iterator[tuple[list[CallRecord], list[float]]]:
    """Chains of calls in the order of the forward, with the norms of the gradients of their outputs.

    A chain is the children of a Sequential, layers of one class whose paths differ in a number, or the calls of one
    module. Of each set of paths the first chain counts.
    """
    chains: dict[tuple[int | None, str, str], list[CallRecord]] = {}
    for call in run.calls:
        if call.error is None and _norm(call) is not None:
            group = "*" if call.parent is not None and call.parent.type == "Sequential" else starred(call.path)
            kind = "" if group == "*" else call.type
            chains.setdefault((call.parent.number if call.parent else None, group, kind), []).append(call)
    seen: set[tuple[str, ...]] = set()
    for (parent, _, _), calls in chains.items():
        names = tuple(call.path for call in calls)
        norms = [norm for call in calls if (norm := _norm(call)) is not None]
        if parent is not None and len(calls) >= SHORTEST and names not in seen:
            seen.add(names)
            yield calls, norms


def _norm(call: CallRecord) -> float | None:
    """The L2 norm of the gradients of a call's outputs; None where none arrived, or the norm is 0 or not finite."""
    grads = [info.grad for info in call.outputs if info.grad is not None]
    stats = [grad.stats for grad in grads if grad.stats is not None]
    if not stats or any(map(broken, grads)):
        return None
    return hypot(*(each.norm for each in stats)) or None


def _steps(norms: list[float]) -> list[float]:
    """The factor by which the gradient changes from each layer to the one before it."""
    return [before / after for before, after in pairwise(norms)]


@rule(
    "no-gradient",
    advice="Find where the graph is cut: .detach(), torch.no_grad(), .item(), an output that the loss does not use. "
    "If that is intended, set requires_grad_(False).",
)
def no_gradient(evidence: Evidence) -> Iterator[Finding]:
    """Parameters of called modules that require a gradient and got none in a backward pass that reached others."""
    if evidence.parameters is None or evidence.ended_early:
        return
    if _cut_off(evidence):
        message = "its output depends on no parameter through autograd, though they require gradients: it cannot train"
        yield Finding("", message, severity="error")
        return
    asking = {
        name: facts for name, facts in evidence.parameters.items() if facts.parameter.requires_grad and facts.awaited
    }
    without = {name: facts for name, facts in asking.items() if not facts.gradients and facts.path in evidence.run}
    if not any(facts.gradients for facts in asking.values()):
        return  # no backward pass
    told: set[str] = set()
    for facts in without.values():
        path = _highest(facts.path, asking)
        if path not in told:
            told.add(path)
            own = any(each.gradients for each in evidence.below(path).values())
            names = {
                name: each
                for name, each in without.items()
                if each.path == path or (not own and is_below(each.path, path))
            }
            yield _missing(evidence, path, names)


def _cut_off(evidence: Evidence) -> bool:
    """Whether no floating output of the model, in grad mode, requires a gradient, though its parameters do."""
    ungraded = {(use.path, use.index) for use in evidence.uses or () if not use.graded}
    outer = [calls[-1] for calls in passes(evidence.run) if (calls[-1].path, calls[-1].index) not in ungraded]
    numbers = [info for call in outer if call.path == "" for info in floating(call.outputs)]
    asked = any(
        facts.parameter.requires_grad and facts.path in evidence.run for facts in (evidence.parameters or {}).values()
    )
    return asked and bool(numbers) and not any(info.requires_grad for info in numbers)


def _highest(path: str, asking: dict[str, ParameterFacts]) -> str:
    """The outermost module around a path in which no parameter got a gradient, or the path itself."""
    while path:
        above = path.rpartition(".")[0]
        if not above or any(facts.gradients for facts in asking.values() if is_below(facts.path, above)):
            return path
        path = above
    return path


def _missing(evidence: Evidence, path: str, without: dict[str, ParameterFacts]) -> Finding:
    names = [*without]
    figures = {"parameters": names[:5], "count": len(names)}
    some = any(facts.gradients for facts in evidence.below(path).values())
    if some:
        own = ", ".join(name.rpartition(".")[2] for name in names[:5])
        severity = _severity_left_out(evidence, path, without)
        return Finding(path, f"no gradient for its {own}", evidence=figures, severity=severity)
    outputs = [info for call in evidence.run if call.path == path for info in floating(call.outputs)]
    if outputs and not any(info.requires_grad for info in outputs):
        return Finding(path, "it ran without gradients, or detached its output", evidence=figures)
    if _detached_after(evidence.run, path, outputs):
        return Finding(path, "its output is detached afterwards", evidence=figures, severity="error")
    return Finding(path, "the loss does not depend on its output", evidence=figures)


def _severity_left_out(evidence: Evidence, path: str, without: dict[str, ParameterFacts]) -> Severity:
    """How bad it is that some parameters of a module got no gradient, though others did.

    A warning for a matrix of a layer. A note for vectors, and for a container's own parameters, which often are tokens
    that this batch did not use.
    """
    has_children = any(other != path and is_below(other, path) for other in evidence.run.modules)
    matrix = any(facts.parameter.dim() > 1 for facts in without.values())
    return "warning" if matrix and not has_children else "note"


def _detached_after(run: Run, path: str, outputs: list[TensorInfo]) -> bool:
    """Whether the output of a module, which has a graph, is seen elsewhere without one."""
    elsewhere = [info for call in run if call.path != path for info in (*call.inputs, *call.outputs)]
    return any(
        info.requires_grad and not other.requires_grad and same(other, info) for info in outputs for other in elsewhere
    )


@rule(
    "frozen-parameter",
    advice="If that is not intended, set requires_grad_(True) before creating the optimizer.",
)
def frozen_parameter(evidence: Evidence) -> Iterator[Finding]:
    """A parameter that requires no gradient among layers of its kind of which most do, the first one included."""
    groups: dict[str, dict[str, ParameterFacts]] = {}
    for name, facts in (evidence.parameters or {}).items():
        if facts.parameter.is_floating_point():
            kind = evidence.run.modules.get(facts.path, "")
            groups.setdefault(f"{starred(name)} {kind}", {})[name] = facts
    for group in groups.values():
        frozen = [name for name, facts in group.items() if not facts.parameter.requires_grad]
        if len(group) >= SHORTEST and 0 < len(frozen) < len(group) / 2 and next(iter(group)) not in frozen:
            for name in frozen:
                others = len(group) - len(frozen)
                message = f"its {name.rpartition('.')[2]} is frozen; those of {others} layers like it are not"
                yield Finding(group[name].path, message, evidence={"parameter": name, "alike": len(group)})
