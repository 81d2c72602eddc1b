"""Run each module alone on the inputs of its partner, to find which is a culprit and which passes a difference on."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module

from hookline.compare.arguments import adapted, in_full, rounded
from hookline.compare.recorded import compare_values, key_text, paired_leaves
from hookline.compare.rounding import within
from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import make_hooks
from hookline.matching.tensors import Tolerance, dense, plain
from hookline.model.copies import copied_arguments
from hookline.model.offload import lent, with_data
from hookline.model.restored import random_states, restored, set_random_states
from hookline.model.select import Selection
from hookline.record.record import CallRecord

FIRST = float("-inf")
MOST = 4  # weights of a module that are transposed to see whether its outputs agree then


@dataclass(frozen=True, slots=True)
class Suspect:
    """A call whose outputs differ from those of the reference.

    - `module`: the module of the second model; `record`: its call;
    - `allowed`: the tolerance; `rounding`: the error that rounding explains, as a share of the norm.
    """

    module: Module
    record: CallRecord
    allowed: Tolerance | None
    rounding: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of running a module alone on the reference's inputs.

    - `is_culprit`: whether its outputs differ; None if it could not be run on them, and `reason` says why;
    - `only_weights`: whether its outputs agree with the reference's weights; None if that is not known;
    - `transposed`: the square weights with which its outputs agree once they are transposed.
    """

    is_culprit: bool | None
    only_weights: bool | None = None
    reason: str = ""
    transposed: tuple[str, ...] = ()


def isolate(
    reference: Selection, suspects: Mapping[tuple[str, int], Suspect], run: Callable[[], Any]
) -> dict[tuple[str, int], Verdict]:
    """The verdict on each suspect, by path and index of the reference's call. `run` runs the reference once.

    A module that contains a culprit is not run, and is not one. Only the inputs of the calls under way are stored.
    Afterwards both models are restored.
    """
    wanted = {path for path, _ in suspects}
    modules = [(path, module) for path, module in reference if path in wanted]
    trial = Trial(suspects, {id(module): (path, itertools.count()) for path, module in modules})
    hooks = make_hooks(before=trial.begin, always=trial.end, order=FIRST, compiled="outside")
    with attach(modules, hooks), restored(reference.model, ()), torch.inference_mode(False), torch.no_grad():
        run()
    return trial.verdicts


@dataclass(slots=True)
class Trial:
    """The hooks on the reference's modules, and what they found."""

    suspects: Mapping[tuple[str, int], Suspect]
    known: dict[int, tuple[str, "itertools.count[int]"]]
    verdicts: dict[tuple[str, int], Verdict] = field(default_factory=dict)
    given: dict[Call, tuple[tuple[str, int], Any, Any]] = field(default_factory=dict)
    guilty: set[Call] = field(default_factory=set)
    busy: bool = False

    def begin(self, call: Call) -> None:
        """Keep the inputs of a suspect, and the state of the random generators."""
        if self.busy:
            return
        path, count = self.known[id(call.module)]
        key = path, next(count)
        if key in self.suspects:
            arguments = call.args, call.kwargs
            self.given[call] = key, copied_arguments(arguments), random_states(arguments)

    def end(self, call: Call) -> None:
        """Run the partner on the same inputs, unless a module inside was found to be a culprit."""
        inner = call in self.guilty
        guilty = inner
        key, arguments, states = self.given.pop(call, (None, None, None))
        if key is not None and call.error is None:
            verdict = Verdict(is_culprit=False) if inner else self.judge(call, self.suspects[key], arguments, states)
            self.verdicts[key] = verdict
            guilty = guilty or bool(verdict.is_culprit)
        self.guilty.discard(call)
        if guilty and call.parent is not None:
            self.guilty.add(call.parent)

    def judge(self, call: Call, suspect: Suspect, arguments: Any, states: Any) -> Verdict:
        """Compare the partner's outputs with the reference's, on the same arguments."""
        self.busy = True
        try:
            again, reason = _run(suspect, suspect.module, copied_arguments(arguments), states)
            whole = in_full(copied_arguments(arguments), call.module, suspect.module, suspect.record)
            if reason and whole is None:
                return Verdict(None, reason=reason)
            wanted = _wanted(call, suspect, arguments, states)
            if not reason and not _differ(wanted, again, suspect):
                return Verdict(is_culprit=False)
            if whole is not None:  # its caller leaves an argument out or adds one, which is not its fault
                again, unfit = _call(suspect, suspect.module, whole, states)
                if not unfit and not _differ(wanted, again, suspect):
                    return Verdict(is_culprit=False)
            if reason:
                return Verdict(None, reason=reason)
            given = wanted, call, suspect, arguments, states
            return Verdict(is_culprit=True, only_weights=_only_weights(*given), transposed=_transposed(*given))
        finally:
            self.busy = False


def _differ(one: Any, other: Any, suspect: Suspect) -> bool:
    """Whether two outputs differ by more than the tolerance, and by more than rounding explains."""
    found = compare_values(one, other, kind=Tensor, allowed=suspect.allowed, strict=False, plain=True)
    differing = {key for key, each in found.items() if each.differs}
    if not differing or not suspect.rounding:
        return bool(differing)
    pairs = {key_text(keys): (a, b) for keys, a, b in paired_leaves(one, other, kind=Tensor)}
    return not all(key in pairs and _rounded_only(*pairs[key], suspect.rounding) for key in differing)


def _rounded_only(one: Tensor | None, other: Tensor | None, bound: float) -> bool:
    if one is None or other is None or not (one.is_floating_point() and other.is_floating_point()):
        return False
    a, b = plain(one), plain(other)
    return a is not None and b is not None and within(a, b, bound)


def _run(suspect: Suspect, function: Callable[..., Any], arguments: Any, states: Any) -> tuple[Any, str]:
    """The output of a function called instead of the partner, or why it has none."""
    try:
        fitting = adapted(arguments, suspect.record)
    except Exception as error:  # the partner may expect other arguments, or more than one call has
        return None, f"{type(error).__name__}: {error}"
    return _call(suspect, function, fitting, states)


def _call(suspect: Suspect, function: Callable[..., Any], arguments: Any, states: Any) -> tuple[Any, str]:
    args, kwargs = arguments
    try:
        with restored(suspect.module, (args, kwargs)):
            set_random_states(states)
            return function(*args, **kwargs), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def _wanted(call: Call, suspect: Suspect, arguments: Any, states: Any) -> Any:
    """The output of the reference's module. If the partner's dtypes are narrower than its arguments, the output on
    arguments rounded to them, since the rest was lost before."""
    fewer = rounded(arguments, suspect.record)
    if fewer is None:
        return call.output
    args, kwargs = fewer
    with restored(call.module, fewer):
        set_random_states(states)
        return call.module(*args, **kwargs)


def _only_weights(wanted: Any, call: Call, suspect: Suspect, arguments: Any, states: Any) -> bool | None:
    """Whether the partner's outputs agree with the weights and buffers of the reference's module."""
    ours, theirs = (dict(with_data(module)) for module in (call.module, suspect.module))
    if not ours or {name: t.shape for name, t in ours.items()} != {name: t.shape for name, t in theirs.items()}:
        return None
    held = [*ours.values(), *theirs.values()]
    if any(tensor.is_meta or dense(tensor) is not tensor for tensor in held):
        return None  # without data, or a subclass, as quantized weights are, that cannot be lent
    lending = {name: tensor.detach().to(theirs[name], copy=True) for name, tensor in ours.items()}
    if all(torch.equal(lending[name], theirs[name]) for name in lending):
        return False

    def borrowing(*args: Any, **kwargs: Any) -> Any:
        return _with(suspect.module, lending, args, kwargs)

    again, reason = _run(suspect, borrowing, copied_arguments(arguments), states)
    return None if reason else not _differ(wanted, again, suspect)


def _transposed(wanted: Any, call: Call, suspect: Suspect, arguments: Any, states: Any) -> tuple[str, ...]:
    """The square weights of the partner with which its outputs agree once they are transposed."""
    names = [name for name, _ in suspect.module.named_parameters()]
    held = {name: tensor for name, tensor in with_data(suspect.module) if name in names}
    turned = {name: each.detach().t() for name, each in held.items() if each.dim() == 2 and _is_square(each)}

    def turning(*args: Any, **kwargs: Any) -> Any:
        return _with(suspect.module, turned, args, kwargs)

    if not turned or len(held) > MOST:
        return ()
    again, reason = _run(suspect, turning, copied_arguments(arguments), states)
    return () if reason or _differ(wanted, again, suspect) else tuple(turned)


def _with(module: Module, values: Mapping[str, Tensor], args: Any, kwargs: Any) -> Any:
    """The output of a module with these weights and buffers instead of its own."""
    with lent(module, values) as own:
        return functional_call(module, own, args, kwargs)


def _is_square(tensor: Tensor) -> bool:
    return tensor.shape[0] == tensor.shape[1] > 1 and dense(tensor) is tensor
