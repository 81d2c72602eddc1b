"""What is said of a value that is not finite: which call made it, with what before it, as an error and as a run."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch.nn import Module

from hookline.errors import NonFiniteError
from hookline.messages import few
from hookline.model.offload import with_data
from hookline.record.finite import Look, bounds_of, can_be_unfinite
from hookline.record.record import CallRecord, Run
from hookline.record.spots import spots

SHOWN = 5


def failure(
    look: Look,
    *,
    maker: CallRecord | None,
    model: str,
    step: int,
    bad_inputs: Sequence[Look],
    before: Sequence[Look],
    module: Module | None,
) -> NonFiniteError:
    """The error about one tensor that is not finite: `maker` is the call that made it, `before` are the looks that came
    before, oldest first, `module` is the one that is asked whether its parameters were so already."""
    path, index = (look.name.rpartition(".")[0], None) if maker is None else (maker.path, maker.index)
    parts = [
        f"{_kind(look)} in {_what(look)}, in the {look.phase} of step {step}{_amount(look)}.",
        _origin(look, maker, bad_inputs),
        *_bad_parameters(module),
        *_lines(before),
        _advice(look, path),
    ]
    run = run_of([*before, look], model=model)
    message = "\n".join(part for part in parts if part)
    return NonFiniteError(message, path=path, index=index, phase=look.phase, step=step, run=run)


def maker_of(look: Look, bad_inputs: Sequence[Look], given: Mapping[int, Sequence[Look]]) -> CallRecord | None:
    """The call that made it, as far as that is sure: in the forward the one that gave it, or the one around in whose
    code the arguments of that were made so; in the backward the one that took the tensor, if that is one, and the
    tensor did not leave a call around that one too; else the one that gave it. `given` are the looks at what each call
    was given, by its number."""
    if look.phase == "forward":
        arounds = (_made_around(bad, given) for bad in bad_inputs if bad.broken)
        return next((call for call in arounds if call is not None), look.record)
    taker = _taker(look)
    return look.record if taker is None or _outside(look, taker) is not None else taker


def _made_around(bad: Look, given: Mapping[int, Sequence[Look]]) -> CallRecord | None:
    """The call in whose code an argument was made that no guarded call gave; None where it came from outside."""
    while bad.record is None and bad.takers and bad.takers[0].parent is not None:
        around = bad.takers[0].parent
        came_in = [look for look in given.get(around.number, ()) if look.now().broken]
        if not came_in:
            return around
        bad = came_in[0]
    return None


def _taker(look: Look) -> CallRecord | None:
    """The one innermost call that took a tensor; None where there are several, or none is known."""
    around = {id(above) for taker in look.takers for above in taker.around()}
    innermost = [taker for taker in look.takers if id(taker) not in around]
    return innermost[0] if len(innermost) == 1 else None


def _outside(look: Look, taker: CallRecord) -> CallRecord | None:
    """The call around a taker that a tensor left too, if there is one: what comes after may have taken it as well."""
    around = {id(above) for above in taker.around()}
    return next((call for call in look.leaves if id(call) in around), None)


def run_of(looks: Iterable[Look], *, model: str) -> Run:
    """The calls of these looks and those around them, in order, with what is known of their tensors by now."""
    calls: dict[int, CallRecord] = {}
    for look in looks:
        _fill(look)
        if look.record is not None:
            calls |= {id(call): call for call in (look.record, *look.record.around())}
    in_order = sorted(calls.values(), key=lambda call: call.number)
    run = Run(model=model, modules={call.path: call.type for call in in_order}, settings={"keep": "guard"})
    run.calls += in_order
    return run


def _fill(look: Look) -> None:
    """Put the statistics of a look where a run looks for them."""
    look.info._stats = look.stats() or look.info._stats


# The message


def _kind(look: Look) -> str:
    if look.low is not None and math.isnan(look.low):
        return "NaN"
    return "Inf" if look.high == math.inf else "-Inf"


def _what(look: Look) -> str:
    if look.record is None:
        return f"the gradient of the parameter {look.name}"
    return f"the {'output' if look.phase == 'forward' else 'gradient of the output'} of {name_of(look.record)}"


def _amount(look: Look) -> str:
    stats = look.stats()
    tensor = f"{look.info.dtype_name}{[*look.info.shape]} {look.info.device}"
    if stats is None or math.isnan(stats.nan):
        return f": a {tensor} that is gone, so how many is not known"
    alive = look.tensor
    found = None if alive is None else spots(alive)
    where = f", {found.where}" if found is not None and found.where else ""
    return f": {stats.nan:,} NaN and {stats.inf:,} Inf among {stats.count:,} elements of {tensor}{where}"


def _origin(look: Look, maker: CallRecord | None, bad_inputs: Sequence[Look]) -> str:
    if look.phase == "forward":
        if not bad_inputs:
            return "What it was given was finite, as far as is known: it was made there."
        given = " and ".join(dict.fromkeys(_kind(given) for given in bad_inputs))
        if maker is not None and maker is not look.record:
            made = f"it was made in the code of {name_of(maker)}, or of a module in it that is not watched"
            return f"What it was given had {given} already, which no watched module gave: {made}."
        return f"What it was given had {given} already; no watched module gave that."
    if look.record is None:
        return "The gradients of all outputs were finite: it was made where that parameter is used."
    taker = _taker(look)
    outside = None if taker is None else _outside(look, taker)
    if taker is not None and outside is not None:
        made = f"it was made in the backward of that, or of what comes after {name_of(outside)}"
        return f"That output went to {name_of(taker)}, and out of {name_of(outside)} too: {made}."
    if maker is None or maker is look.record:
        return "No one watched module is known to take that output: it was made in the backward of what does."
    return f"That output went to {name_of(maker)}: it was made in the backward of that, or of what is computed beside."


def _bad_parameters(module: Module | None) -> list[str]:
    if module is None:
        return []
    with torch.no_grad():
        bad = [name for name, tensor in with_data(module) if can_be_unfinite(tensor) and not _is_finite(tensor)]
    return [f"Its own {few(bad)} {'is' if len(bad) == 1 else 'are'} not finite already."] if bad else []


def _is_finite(tensor: torch.Tensor) -> bool:
    bounds = bounds_of(tensor)
    return bounds is None or all(math.isfinite(float(bound)) for bound in bounds)


def _lines(before: Sequence[Look]) -> list[str]:
    looks = [look for look in before if look.looked and look.record is not None][-SHOWN:]
    return ["The last before it:", *map(_line, looks)] if looks else []


def _line(look: Look) -> str:
    assert look.record is not None
    gave = "gave" if look.phase == "forward" else "got the gradient"
    bounds = f"from {look.low:.4g} to {look.high:.4g}"
    return f"  {name_of(look.record)} {gave} {look.info.dtype_name}{[*look.info.shape]}, {bounds}"


def _advice(look: Look, path: str) -> str:
    where = f'hookline.watch(model, "{path}.**", inputs="stats", grads=True)' if path else "hookline.watch(model)"
    told = f"error.run holds the last calls; {where} on the same batch shows more."
    if look.phase == "forward":
        return told
    return f"{told}\nA loss scaler lets gradients overflow on purpose: with one, guard(model, grads=False)."


def name_of(call: CallRecord) -> str:
    """A call as messages name it: path, class, which call."""
    return f"{call.path or 'the model'} ({call.type}, call {call.index})"
