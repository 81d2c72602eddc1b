"""The error about NaN or Inf in a tensor: the call that produced it, the values before it, and a run of these calls."""

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
    """The error about one tensor that is not finite.

    - `maker`: the call that produced it, as `maker_of` finds it;
    - `bad_inputs`: looks at the inputs of its call that are not finite;
    - `before`: the looks before this one, oldest first;
    - `module`: the module whose parameters may hold NaN or Inf already.
    """
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
    """The call that produced NaN or Inf, as far as that is certain.

    In the forward: the call that returned it, or the call around it whose own code put NaN or Inf in the arguments. In
    the backward: the call that received the tensor, if there is only one and the tensor did not also leave a call
    around that one; else the call that returned it. `given` holds the looks at the arguments of each call, by its
    number.
    """
    if look.phase == "forward":
        arounds = (_made_around(bad, given) for bad in bad_inputs if bad.broken)
        return next((call for call in arounds if call is not None), look.record)
    taker = _taker(look)
    return look.record if taker is None or _outside(look, taker) is not None else taker


def _made_around(bad: Look, given: Mapping[int, Sequence[Look]]) -> CallRecord | None:
    """The call whose own code computed an argument that no guarded call returned; None where it came from outside."""
    while bad.record is None and bad.takers and bad.takers[0].parent is not None:
        around = bad.takers[0].parent
        came_in = [look for look in given.get(around.number, ()) if look.now().broken]
        if not came_in:
            return around
        bad = came_in[0]
    return None


def _taker(look: Look) -> CallRecord | None:
    """The one innermost call that received a tensor; None where there are several, or none is known."""
    around = {id(above) for taker in look.takers for above in taker.around()}
    innermost = [taker for taker in look.takers if id(taker) not in around]
    return innermost[0] if len(innermost) == 1 else None


def _outside(look: Look, taker: CallRecord) -> CallRecord | None:
    """A call around a taker that also returned the tensor, if any: code after that call may use it as well."""
    around = {id(above) for above in taker.around()}
    return next((call for call in look.leaves if id(call) in around), None)


def run_of(looks: Iterable[Look], *, model: str) -> Run:
    """A run of the calls of these looks and the calls around them, in order, with the statistics known by now."""
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
    """Store the statistics of a look in its TensorInfo, where a run reads them."""
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
        return f": a {tensor} that no longer exists, so its NaN and Inf are not counted"
    alive = look.tensor
    found = None if alive is None else spots(alive)
    where = f", {found.where}" if found is not None and found.where else ""
    return f": {stats.nan:,} NaN and {stats.inf:,} Inf among {stats.count:,} elements of {tensor}{where}"


def _origin(look: Look, maker: CallRecord | None, bad_inputs: Sequence[Look]) -> str:
    if look.phase == "forward":
        if not bad_inputs:
            return "Its inputs were finite, as far as known, so it originated here."
        given = " and ".join(dict.fromkeys(_kind(given) for given in bad_inputs))
        if maker is not None and maker is not look.record:
            where = f"in the code of {name_of(maker)}, or in a module in it that is not watched"
            return f"Its inputs had {given} already, which no watched module returned. It originated {where}."
        return f"Its inputs had {given} already, which no watched module returned."
    if look.record is None:
        return "The gradients of all outputs were finite, so it originated where that parameter is used."
    taker = _taker(look)
    outside = None if taker is None else _outside(look, taker)
    if taker is not None and outside is not None:
        where = f"in the backward of that, or of the code after {name_of(outside)}"
        return f"That output went to {name_of(taker)} and was returned by {name_of(outside)}. It originated {where}."
    if maker is None or maker is look.record:
        return "No single watched module is known to receive that output. It originated in the backward of what does."
    where = "in the backward of that, or of other code that uses the output"
    return f"That output went to {name_of(maker)}. It originated {where}."


def _bad_parameters(module: Module | None) -> list[str]:
    if module is None:
        return []
    with torch.no_grad():
        bad = [name for name, tensor in with_data(module) if can_be_unfinite(tensor) and not _is_finite(tensor)]
    return [f"Its own {few(bad)} already had NaN or Inf."] if bad else []


def _is_finite(tensor: torch.Tensor) -> bool:
    bounds = bounds_of(tensor)
    return bounds is None or all(math.isfinite(float(bound)) for bound in bounds)


def _lines(before: Sequence[Look]) -> list[str]:
    looks = [look for look in before if look.looked and look.record is not None][-SHOWN:]
    return ["The last values before it:", *map(_line, looks)] if looks else []


def _line(look: Look) -> str:
    assert look.record is not None
    verb = "returned" if look.phase == "forward" else "received the gradient"
    bounds = f"from {look.low:.4g} to {look.high:.4g}"
    return f"  {name_of(look.record)} {verb} {look.info.dtype_name}{[*look.info.shape]}, {bounds}"


def _advice(look: Look, path: str) -> str:
    where = f'hookline.watch(model, "{path}.**", inputs="stats", grads=True)' if path else "hookline.watch(model)"
    text = f"error.run holds the last calls; {where} on the same batch shows more."
    if look.phase == "forward":
        return text
    return f"{text}\nA loss scaler lets gradients overflow on purpose: use guard(model, grads=False) with one."


def name_of(call: CallRecord) -> str:
    """A call as messages name it: path, class, number of the call."""
    return f"{call.path or 'the model'} ({call.type}, call {call.index})"
