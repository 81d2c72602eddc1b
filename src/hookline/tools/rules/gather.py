"""Gathering: the steps and hooks that find out, while a check watches, what a run does not hold."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import make_hooks
from hookline.model.paths import paths
from hookline.model.select import Selection
from hookline.model.tensors import tensors
from hookline.record.keep import version_of
from hookline.record.measure import is_traced, unseen
from hookline.record.record import Run
from hookline.tools.rules.evidence import Evidence, Suspect, Use
from hookline.tools.rules.tally import NEVER, ParameterTally, UnitTally, largest_of, norm_of, tally_for

LAST = float("inf")
Given: TypeAlias = "tuple[str, int | None, str, weakref.ref[Tensor], int]"  # path, call, name, tensor, version


@dataclass(slots=True)
class Gathering:
    """What a check has found out so far, beside the run."""

    selection: Selection
    parameters: dict[str, ParameterTally] = field(default_factory=dict)
    units: dict[str, UnitTally] = field(default_factory=dict)
    loss: float | None = None
    error: BaseException | None = None
    steps: int = 0
    other_steps: int = 0
    begun: int = 0
    versions: tuple[int | None, ...] = ()
    same_samples: Tensor | None = None
    autocast: set[str] = field(default_factory=set)
    uses: list[Use] = field(default_factory=list)
    given: dict[tuple[str, str, int], Given] = field(default_factory=dict)
    many: int = 1000
    changed: list[Suspect] = field(default_factory=list)

    def begin(self, call: Call) -> None:
        """Before a call: what the parameters are like, where it is the model's own."""
        if call.parent is not None:
            return
        self.begun += 1
        if call.recompute:
            return
        self._look_at_parameters()
        graded = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        self.uses.append(Use(call.path, call.index, call.module.training, graded, self.steps))
        self._forget_what_is_gone()
        for name, each in self.parameters.items():
            self._note(each.path, None, f"its parameter {name.rpartition('.')[2]}", each.parameter)
        for _, tensor in tensors((call.args, call.kwargs)):
            self._note(call.path, call.index, "its input", tensor)

    def end(self, call: Call) -> None:
        """After a call: what it gave."""
        output = call.output
        if any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
            self.autocast.add(call.path)
        found = [tensor for _, tensor in tensors(output)]
        for tensor in found:
            self._note(call.path, call.index, "its output", tensor)
        if call.parent is None and not call.recompute:
            self.changed = [*self._suspects()]  # the graph may be gone before the check ends, and they with it
        first = found[0] if found else None
        if first is None or not _readable(first):
            return
        with suppress(Exception), unseen(first), torch.no_grad():  # to look at a tensor never ends a call
            tally = self.units.get(call.path) or tally_for(call.module)
            if tally is not None:
                self.units[call.path] = tally
                tally.see(call.module, first.detach())
            if call.parent is None and call.module is self.selection.model:
                self._compare_samples(call, first.detach())

    def before_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Before an optimizer's step: what its parameters are."""
        known = {id(each.parameter): each for each in self.parameters.values()}
        held = [
            (known[id(parameter)], group.get("lr", 0.0))
            for group in optimizer.param_groups
            for parameter in group["params"]
            if id(parameter) in known
        ]
        self.steps += bool(held)
        self.other_steps += not held
        with torch.no_grad():
            for each, rate in held:
                each.begin_step(rate)

    def after_step(self, optimizer: Optimizer, *_: Any) -> None:
        """After it: what became of them."""
        with torch.no_grad():
            for each in self.parameters.values():
                each.end_step()

    def evidence(self, run: Run) -> Evidence:
        """All that was found out."""
        self.begun += 1  # what the last step did counts as before a call that was not made
        self._look_at_parameters()
        return Evidence(
            run=run,
            modules=dict(self.selection),
            parameters={name: each.facts() for name, each in self.parameters.items()},
            units={path: tally.facts() for path, tally in self.units.items() if tally.seen},
            loss=self.loss,
            error=self.error,
            steps=self.steps,
            other_steps=self.other_steps,
            same_samples=self.same_samples is not None and bool(self.same_samples),
            autocast=frozenset(self.autocast),
            uses=tuple(self.uses),
            suspects=(*self._suspects(), *self.changed),
        )

    def _look_at_parameters(self) -> None:
        """See which parameters are not finite; again only where one was changed since."""
        versions = tuple(version_of(each.parameter) for each in self.parameters.values())
        if versions == self.versions:
            return
        self.versions = versions
        for each in self.parameters.values():
            largest = largest_of(each.parameter)
            if largest is None:
                continue
            now = torch.where(largest.isfinite(), NEVER, self.begun - 1)
            each.bad_pass = now if each.bad_pass is None else torch.minimum(each.bad_pass, now)

    def _note(self, path: str, call: int | None, name: str, tensor: Tensor) -> None:
        """Keep how often a tensor was changed in place when it was given, without keeping it alive."""
        version = version_of(tensor)
        if version is not None:
            self.given[path, name, id(tensor)] = path, call, name, weakref.ref(tensor), version

    def _forget_what_is_gone(self) -> None:
        """Let go of tensors that are not there any more, once they may be the half of those noted."""
        if len(self.given) > self.many:
            self.given = {key: each for key, each in self.given.items() if each[3]() is not None}
            self.many = 2 * len(self.given) + 1000

    def _suspects(self) -> Iterator[Suspect]:
        for path, call, name, reference, version in self.given.values():
            tensor = reference()
            now = None if tensor is None else version_of(tensor)
            if tensor is not None and now is not None and now != version:
                yield Suspect(path, call, name, tuple(tensor.shape), version, now)

    def _compare_samples(self, call: Call, output: Tensor) -> None:
        """Whether every sample of the batch got the same, though what was given differs between samples."""
        first = next((tensor for _, tensor in tensors((call.args, call.kwargs))), None)
        if first is None or first.is_nested or first.layout != torch.strided or not first.dim() or not output.dim():
            return
        if len(first) != len(output) or len(first) < 2 or first.device != output.device or not output[0].numel():
            return
        given = first.detach()
        differ, equal = (given != given[:1]).any(), (output == output[:1]).all()
        if bool(differ):
            self.same_samples = equal if self.same_samples is None else self.same_samples & equal


def _readable(tensor: Tensor) -> bool:
    """Whether numbers can be read of a tensor: a plain one, and no stand-in of vmap, tracing or the meta device."""
    plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout == torch.strided and not tensor.is_meta
    if not plain or not tensor.is_floating_point() or not tensor.numel():
        return False
    return not is_traced(tensor) and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


@contextmanager
def gathering(selection: Selection) -> Iterator[Gathering]:
    """A `with` block in which evidence is gathered on the selected modules and on all parameters of their model; its
    steps and hooks are off again afterwards."""
    found = Gathering(selection)
    undo: list[Callable[[], None]] = []
    try:
        found.parameters = _tallies(selection.model)
        undo.append(
            attach(selection, make_hooks(before=found.begin, after=found.end, order=LAST, compiled="leave out")).remove
        )
        for each in found.parameters.values():
            if each.parameter.is_leaf and each.parameter.requires_grad:
                handle: Any = each.parameter.register_post_accumulate_grad_hook(each.see_gradient)  # type: ignore[no-untyped-call]
                undo.append(handle.remove)
        undo.append(register_optimizer_step_pre_hook(found.before_step).remove)
        undo.append(register_optimizer_step_post_hook(found.after_step).remove)
        yield found
    finally:
        for take_off in reversed(undo):
            take_off()


def _tallies(model: Module) -> dict[str, ParameterTally]:
    """An empty tally for each parameter of a model, by its first name, with what was not finite from the start."""
    found: dict[int, tuple[str, ParameterTally]] = {}
    for module, own in paths(model):
        for name, parameter in module._parameters.items():
            if parameter is None or is_lazy(parameter) or id(parameter) in found:
                continue
            tally = ParameterTally(own[0], parameter, norm=norm_of(parameter))
            found[id(parameter)] = f"{own[0]}.{name}".removeprefix("."), tally
            largest = largest_of(parameter)
            if largest is not None and not bool(largest.isfinite()):
                tally.nan, tally.inf = int(parameter.isnan().sum()), int(parameter.isinf().sum())
    return dict(found.values())
