"""Rules on modules: never called, in the wrong mode, normalizing over one value, changing dtype or device."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn import Module

from hookline.checking.evidence import Evidence, ParameterFacts, Use, floating, is_below, starred
from hookline.checking.finding import Finding, Severity, rule
from hookline.messages import dtype_name
from hookline.model.offload import execution_devices, hooks_of
from hookline.record.record import CallRecord
from hookline.torch_private import BatchNorm, Dropout

NOTHING_TO_TRAIN = "Call it if it is needed, or remove it from the model."
HOLDERS = ("ModuleList", "ModuleDict", "ParameterList", "ParameterDict")


@rule(
    "never-called",
    advice="Call it, or remove it from the model: its parameters are stored and counted, but never trained.",
)
def never_called(evidence: Evidence) -> Iterator[Finding]:
    """Modules that were not called. A warning where their parameters require a gradient and got none though others did.
    Otherwise a note, also for one of several alike, which chance or routing may skip."""
    groups: dict[tuple[str, Severity], list[str]] = {}
    for path in _never_called(evidence):
        groups.setdefault((starred(path), _severity_uncalled(evidence, path)), []).append(path)
    for (_, severity), paths in groups.items():
        waiting = sum(_trainable(evidence, path) for path in paths)
        yield Finding(
            paths[0],
            "was never called"
            + (f", nor were {len(paths) - 1} like it" if len(paths) > 1 else "")
            + (f": {waiting:,} trainable values" if waiting else ""),
            evidence={"paths": paths, "trainable": waiting},
            severity=severity,
            advice="" if waiting else NOTHING_TO_TRAIN,
        )


def _never_called(evidence: Evidence) -> Iterator[str]:
    """The outermost modules that were not called, without any module in them called and with parameters that nothing
    else uses."""
    missing = [path for path in evidence.run.never_called if evidence.run.modules[path] not in HOLDERS]
    called = {call.path for call in evidence.run}
    for path in missing if called and not evidence.ended_early else ():
        inside = any(other != path and is_below(path, other) for other in missing)
        in_use = any(is_below(other, path) for other in called)
        own = evidence.below(path).values()
        if not inside and not in_use and not any(facts.gradients or _brought(evidence, facts) for facts in own):
            yield path


def _brought(evidence: Evidence, facts: ParameterFacts) -> bool:
    """Whether accelerate loads a parameter for the call of a module around its own, which then uses it."""
    module = (evidence.modules or {}).get(facts.path)
    return facts.elsewhere and module is not None and not hooks_of(module)


def _severity_uncalled(evidence: Evidence, path: str) -> Severity:
    severe = _trainable(evidence, path) and evidence.backward_ran and not _is_one_of_several(evidence, path)
    return "warning" if severe else "note"


def _trainable(evidence: Evidence, path: str) -> int:
    """How many elements of a module's parameters require a gradient."""
    return sum(facts.parameter.numel() for facts in evidence.below(path).values() if facts.parameter.requires_grad)


def _is_one_of_several(evidence: Evidence, path: str) -> bool:
    """Whether a module is an item of a list of which others were called."""
    above, _, name = path.rpartition(".")
    siblings = [other for other in evidence.run.modules if other.rpartition(".")[0] == above and other != path]
    kind = evidence.run.modules[path]
    return name.isdigit() and any(other in evidence.run and evidence.run.modules[other] == kind for other in siblings)


@rule(
    "wrong-mode",
    advice="Call model.train() before training steps, and model.eval() before the model is used or measured.",
)
def wrong_mode(evidence: Evidence) -> Iterator[Finding]:
    """Dropout and batch norm in the wrong mode: in eval mode while an optimizer steps, or in train mode while the model
    is used or measured."""
    modal = {path: module for path, module in (evidence.modules or {}).items() if _has_modes(module)}
    called = {path: [call for call in evidence.run if call.path == path] for path in modal}
    counts = Counter(type(modal[path]).__name__ for path, calls in called.items() if calls)
    if not counts:
        return
    figures = {"modules": dict(counts), "steps": evidence.steps}
    told = " and ".join(f"{count} {name}" for name, count in counts.items())

    if any(_is_in_training_part(evidence, path) for path in modal):
        yield from _trained_in_evaluation(evidence, told, figures)
    measured = _measured_in_training(evidence, modal)
    if measured is not None:
        message = f"used without gradients in train mode: {told} act as in training"
        yield Finding(measured.path, message, call=measured.index, evidence=figures)
    yield from _mixed(called)


def _trained_in_evaluation(evidence: Evidence, told: str, figures: dict[str, Any]) -> Iterator[Finding]:
    """Training steps, all or some, whose forwards all ran in eval mode."""
    uses, steps = evidence.uses or (), evidence.steps or 0
    if not steps or not uses:
        return
    if not any(use.training for use in uses):
        message = f"an optimizer stepped, and the model was always in eval mode: {told} did not act as in training"
        yield Finding(uses[0].path, message, evidence=figures)
        return
    before: dict[int, list[Use]] = {}
    for use in uses:
        if use.graded and use.steps < steps:
            before.setdefault(use.steps, []).append(use)
    idle = [own[0] for own in before.values() if not any(use.training for use in own)]
    if idle:
        message = f"{len(idle)} of {steps} training steps ran in eval mode: {told} did not act as in training"
        yield Finding(idle[0].path, message, call=idle[0].index, evidence=figures)


def _measured_in_training(evidence: Evidence, modal: Mapping[str, Module]) -> Use | None:
    """The first use without gradients, in train mode, that is not part of training.

    That is a use where no call had gradients at all, one after the last training step, or one of a kind that at most a
    third of the training steps have before them.
    """
    uses, steps = evidence.uses or (), evidence.steps or 0
    graded = {(call.path, call.index) for call in evidence.run if any(info.requires_grad for info in call.outputs)}
    found = [use for use in uses if use.training and not use.graded and (use.path, use.index) not in graded]
    found = [use for use in found if any(is_below(path, use.path) for path in modal)]
    if not found:
        return None
    if not graded:
        return found[0]
    trained = {use.steps for use in uses if use.graded and use.path == found[0].path and use.steps < steps}
    rare = 3 * len({use.steps for use in found}) <= len(trained)
    over = [use for use in found if use.steps == steps and trained and not evidence.other_steps]
    later = [use for use in found if use.steps > 0]  # before the first step something may be set up
    return next(iter(later if rare else over), None)


def _is_in_training_part(evidence: Evidence, path: str) -> bool:
    """Whether a batch norm, or the module around a dropout, requires gradients: frozen parts belong in eval mode."""
    own = evidence.below(path) or evidence.below(path.rpartition(".")[0])
    return any(facts.parameter.requires_grad for facts in own.values())


def _mixed(called: Mapping[str, list[CallRecord]]) -> Iterator[Finding]:
    """Modules in another mode than the model: one finding for each mode.

    A warning for train mode inside a model in eval mode. A note for the opposite, which is how norms are frozen.
    """
    found: dict[bool, list[CallRecord]] = {True: [], False: []}
    for calls in called.values():
        other = [call for call in calls if call.training != _outermost(call).training]
        if other:
            found[other[0].training].append(other[0])
    for training, calls in found.items():
        if calls:
            mode, outer = ("train", "eval") if training else ("eval", "train")
            message = f"is in {mode} mode inside a model in {outer} mode"
            more = f", as are {len(calls) - 1} more" if len(calls) > 1 else ""
            on_purpose = not training or _is_sampling(called)
            severity: Severity = "note" if on_purpose else "warning"
            paths = [call.path for call in calls[:5]]
            yield Finding(
                calls[0].path, message + more, call=calls[0].index, evidence={"paths": paths}, severity=severity
            )


def _is_sampling(called: Mapping[str, list[CallRecord]]) -> bool:
    """Whether all dropouts, and nothing else, are in train mode inside a model in eval mode: sampling from a trained
    model by dropout needs that."""
    inside = [call for calls in called.values() for call in calls if not _outermost(call).training]
    return all(call.training is not call.type.startswith(("Batch", "SyncBatch")) for call in inside)


def _outermost(call: CallRecord) -> CallRecord:
    while call.parent is not None:
        call = call.parent
    return call


def _has_modes(module: Module) -> bool:
    """Whether a module behaves differently in train mode and in eval mode."""
    if isinstance(module, Dropout):
        return module.p > 0
    return isinstance(module, BatchNorm) and module.running_mean is not None


@rule(
    "one-value-norm",
    severity="error",
    advice="A norm of one value returns its bias, or raises. Use a larger batch or image (drop_last=True in the "
    "loader), another normalization, or eval() for one sample.",
)
def one_value_norm(evidence: Evidence) -> Iterator[Finding]:
    """A normalization that takes the mean and variance of a single value."""
    seen: set[str] = set()
    for call in evidence.run:
        values = _values_normalized(call, evidence.module(call.path))
        if values == 1 and call.path not in seen:
            seen.add(call.path)
            shape = list(call.inputs[0].shape)
            message = f"takes the mean and variance of a single value: its input is {shape}"
            yield Finding(call.path, message, call=call.index, evidence={"shape": shape})


def _values_normalized(call: CallRecord, module: Module | None) -> int | None:
    """How many values share one mean; None where that is unknown."""
    if not call.inputs or len(call.inputs[0].shape) < 1:
        return None
    shape = call.inputs[0].shape
    if call.type.startswith(("BatchNorm", "SyncBatchNorm")):
        return prod(shape) // shape[1] if call.training and len(shape) > 1 and shape[1] else None
    if isinstance(module, nn.LayerNorm):
        return prod(module.normalized_shape)
    if isinstance(module, nn.GroupNorm) and len(shape) > 1:
        return prod(shape[1:]) // module.num_groups
    return None


@rule(
    "dtype-changed",
    advice="Create tensors in the dtype in which they are used. float64 mostly comes from numpy or a Python list; a "
    "cast to a narrower dtype belongs under torch.autocast.",
)
def dtype_changed(evidence: Evidence) -> Iterator[Finding]:
    """A module whose output has a floating dtype that neither its inputs nor its parameters have. A warning for
    float64, or for a narrower dtype without autocast; a note for a wider one."""
    for call, dtypes in _innermost_changes(evidence, "dtype"):
        given = max(dtypes, key=lambda dtype: torch.finfo(dtype).bits)
        own = floating(call.outputs)[0].dtype
        narrower = torch.finfo(own).bits < torch.finfo(given).bits
        if narrower and (evidence.autocast is None or call.path in evidence.autocast):
            continue
        names = [dtype_name(dtype) for dtype in (given, own)]
        yield Finding(
            call.path,
            f"returns {names[1]} from {names[0]}",
            call=call.index,
            evidence={"given": names[0], "gave": names[1]},
            severity="warning" if narrower or own == torch.float64 else "note",
        )


@rule("device-changed", advice="Create new tensors on the device of the module's inputs: torch.zeros_like(x).")
def device_changed(evidence: Evidence) -> Iterator[Finding]:
    """A module that returns tensors on a device that neither its inputs nor its parameters are on."""
    for call, devices in _innermost_changes(evidence, "device"):
        own = call.outputs[0].device
        given = ", ".join(sorted(map(str, devices)))
        yield Finding(
            call.path,
            f"returns a tensor on {own} from tensors on {given}",
            call=call.index,
            evidence={"given": given, "gave": str(own)},
        )


def _innermost_changes(evidence: Evidence, name: str) -> list[tuple[CallRecord, set[Any]]]:
    """The first call of each module whose floating output has a new dtype or device, with those of its inputs and
    parameters; only of the innermost such modules."""
    found: dict[str, tuple[CallRecord, set[Any]]] = {}
    for call in evidence.run:
        if call.path in found or call.error is not None:
            continue
        held = {getattr(info, name) for info in floating(call.inputs)}
        gave = {getattr(info, name) for info in floating(call.outputs)[:1]}
        if gave <= held:
            continue
        held |= {
            getattr(facts.parameter, name)
            for facts in evidence.below(call.path).values()
            if facts.parameter.is_floating_point() and not (facts.elsewhere and name == "device")
        }
        module = (evidence.modules or {}).get(call.path)
        if name == "device" and module is not None:
            held |= {*execution_devices(module)} if held or hooks_of(module) else set()
        if held and gave - held:
            found[call.path] = call, held
    inner = [path for path in found if not any(other != path and is_below(other, path) for other in found)]
    return [found[path] for path in inner]
