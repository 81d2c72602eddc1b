"""Gather evidence while a check watches: the hooks that find out what a run does not record."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from hookline.checking.evidence import Evidence, Place, Scored, Suspect, Trail, UnitFacts, Use
from hookline.checking.links import Links
from hookline.checking.locate import Locator
from hookline.checking.scored import Scores, maker, scored_in_graph
from hookline.checking.tally import NEVER, ParameterTally, UnitTally, alike, largest_of, norm_of, tally_for, units_of
from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import make_hooks
from hookline.model.offload import Elsewhere, held_elsewhere, read_elsewhere
from hookline.model.paths import paths
from hookline.model.select import Selection
from hookline.model.tensors import tensors
from hookline.model.unregistered import Unregistered, unregistered
from hookline.record.draws import Draws
from hookline.record.keep import version_of
from hookline.record.record import Run
from hookline.record.spots import spots
from hookline.record.statistics import is_traced, unseen
from hookline.torch_private import is_functorch_wrapped_tensor

LAST = float("inf")
SHORTEST, LARGE = 4, 1e4  # fewest time steps, and smallest norm of the last, from which growth means something
Given: TypeAlias = "tuple[str, int | None, str, weakref.ref[Tensor], int]"  # path, call, name, tensor, version


@dataclass(slots=True)
class Gathering:
    """The evidence that a check has gathered so far, besides the run."""

    selection: Selection
    parameters: dict[str, ParameterTally] = field(default_factory=dict)
    units: dict[tuple[Any, ...], UnitTally] = field(default_factory=dict)
    trails: dict[Call | None, Trail] = field(default_factory=lambda: {None: Trail(outermost=True)})
    spots: dict[Call, tuple[str, int]] = field(default_factory=dict)
    loss: float | None = None
    error: BaseException | None = None
    steps: int = 0
    other_steps: int = 0
    begun: int = 0
    graded: int = -1
    versions: tuple[int | None, ...] = ()
    same_samples: Tensor | None = None
    autocast: set[str] = field(default_factory=set)
    uses: list[Use] = field(default_factory=list)
    given: dict[tuple[str, str, int], Given] = field(default_factory=dict)
    many: int = 1000
    changed: list[Suspect] = field(default_factory=list)
    links: Links = field(default_factory=Links)
    paths: dict[int, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    running: dict[Call, Place] = field(default_factory=dict)
    undo: list[Callable[[], None]] = field(default_factory=list)
    locator: Locator = field(default_factory=Locator)
    hidden: dict[int, tuple[Unregistered, list[int]]] = field(default_factory=dict)
    draws: Draws = field(default_factory=Draws)
    growth: dict[str, Tensor] = field(default_factory=dict)
    norms: list[Tensor] = field(default_factory=list)
    scores: Scores = field(default_factory=Scores)
    scored: list[Scored] = field(default_factory=list)

    def begin(self, call: Call) -> None:
        """Before a call: look at its inputs, and before an outermost call also at the parameters."""
        path = self.paths.get(id(call.module), call.path)
        place = self.running[call] = path, self.counts[path]
        self.counts[path] += 1
        self.draws.begin(call, place)
        self.trails[call] = Trail(outermost=False)
        self.spots[call] = self.trails.get(call.parent, self.trails[None]).step(path)
        if not call.recompute:
            with suppress(Exception):  # looking at a tensor must never end a call
                received = [tensor for _, tensor in tensors((call.args, call.kwargs)) if _can_be_linked(tensor)]
                self.links.take(place, self._around(call), received)
                for tensor in received:
                    self._see_rectified(tensor, f"as {path} receives them")
        if call.parent is not None:
            return
        self.meet_parameters()
        self.meet_hidden()
        self.begun += 1
        if call.recompute:
            return
        for keys, tensor in tensors((call.args, call.kwargs)):
            self.locator.see((*place, ".".join(map(str, keys[1:]))), tensor, call)
        self._look_at_parameters()
        graded = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        self.uses.append(Use(call.path, call.index, call.module.training, graded, self.steps))
        self._forget_what_is_gone()
        for name, each in self.parameters.items():
            self._note(each.path, None, f"its parameter {name.rpartition('.')[2]}", each.parameter)
        for _, tensor in tensors((call.args, call.kwargs)):
            self._note(call.path, call.index, "its input", tensor)

    def end(self, call: Call) -> None:
        """After a call: look at its output."""
        output = call.output
        self.draws.end(call)
        if any(torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")):
            self.autocast.add(call.path)
        found = [tensor for _, tensor in tensors(output)]
        for tensor in found:
            self._note(call.path, call.index, "its output", tensor)
        place = self.running.get(call)
        if place is not None and not call.recompute:
            for number, tensor in enumerate(found):
                if self.links.source_of(tensor) is None:
                    self.locator.see((*place, number), tensor, call)
            with suppress(Exception):
                for tensor in found if tally_for(call.module) is None else ():
                    self._see_rectified(tensor, f"as {place[0] or 'the model'} returns them")
                self.links.give(place, [tensor for tensor in found if _can_be_linked(tensor)])
        if call.parent is None and not call.recompute:
            self.locator.end()
            with suppress(Exception):
                self.scores.watch(self._maker(found) or call.path, [each for each in found if _can_be_linked(each)])
                self.links.end()
            self.meet_parameters()
            self.changed = [*self._suspects()]  # the graph and these tensors may be freed before the check ends
        first = found[0] if found else None
        if first is None or not _readable(first):
            return
        with suppress(Exception), unseen(first), torch.no_grad():  # looking at a tensor must never end a call
            self._see_units(call, first.detach())
            self._see_growth(call, first.detach())
            if call.parent is None and call.module is self.selection.model:
                self._compare_samples(call, first.detach())

    def leave(self, call: Call) -> None:
        """After a call, whether it raised or not."""
        self.draws.leave(call)
        for known in (self.running, self.trails, self.spots):
            known.pop(call, None)

    def _see_units(self, call: Call, output: Tensor) -> None:
        """Count the active units of an activation at the place from which it is called."""
        tally = tally_for(call.module)
        if tally is None or call not in self.running:
            return
        around = self._around(call)
        path, index = self.running[call]
        after, again = self.spots[call]
        key = path, around and around[0], after, again, units_of(output) if tally.kind == "rectifier" else 0
        if key not in self.units:
            where = f"where {around[0] or 'the model'} calls it" if around else "where it is called"
            tally.path, tally.call, tally.where = path, index, f"{where} after {after}" if after else where
            self.units[key] = tally
        self.units[key].see(call.module, output)

    def _see_growth(self, call: Call, output: Tensor) -> None:
        """Measure how much the output of a recurrent layer grows from its first time step to its last."""
        module = call.module
        if not isinstance(module, torch.nn.RNNBase) or output.dim() < 2:
            return
        steps = output.unbind(1 if module.batch_first and output.dim() == 3 else 0)
        first, last = norm_of(steps[0]), norm_of(steps[-1])
        if first is None or last is None or len(steps) < SHORTEST:
            return
        growth = torch.where(last > LARGE, last / first.clamp(min=torch.finfo(first.dtype).tiny), 0.0)
        known = self.growth.get(call.path)
        self.growth[call.path] = growth if known is None else torch.maximum(known, growth)

    def _see_rectified(self, tensor: Tensor, where: str) -> None:
        """Count active units of torch.relu and F.relu6, which are not modules, at the module before them."""
        found = self.links.rectified_of(tensor) if _readable(tensor) else None
        if found is None:
            return
        (path, *_), name, values = found
        tally = UnitTally("rectifier", path, f"after {name}, {where}", functional=True)
        with unseen(tensor), torch.no_grad():
            self.units.setdefault((path, where, units_of(values)), tally).see(self.selection.model, values)

    def meet_parameters(self) -> None:
        """Add parameters that are new in the model, and hook the gradients of those that require one by now."""
        for name, tally in _tallies(self.selection.model, self.parameters).items():
            self.parameters[name] = tally
        for tally in self.parameters.values():
            parameter = tally.parameter
            if not parameter.requires_grad or tally.elsewhere:
                continue
            if tally.asked is None and self.begun and torch.is_grad_enabled():
                tally.asked = self.begun
            if not tally.hooked and parameter.is_leaf:
                tally.hooked = True
                see = partial(self._see_gradient, tally)
                handle: Any = parameter.register_post_accumulate_grad_hook(see)  # type: ignore[no-untyped-call]
                self.undo.append(handle.remove)
                handle = parameter.register_hook(partial(_expect_gradient, tally))  # type: ignore[no-untyped-call]
                self.undo.append(handle.remove)

    def meet_hidden(self) -> None:
        """Add modules and parameters in plain containers, and count their gradients."""
        for each in unregistered(self.selection.model):
            if id(each.value) in self.hidden:
                continue
            count = [0]
            self.hidden[id(each.value)] = each, count
            for tensor in each.parameters:
                if tensor.is_leaf and tensor.requires_grad:
                    handle: Any = tensor.register_post_accumulate_grad_hook(partial(_count, count))  # type: ignore[no-untyped-call]
                    self.undo.append(handle.remove)

    def see_loss(self, loss: Tensor, output: Any) -> None:
        """Look at the graph of a loss before its backward pass."""
        with suppress(Exception):
            found = [tensor for _, tensor in tensors(output)]
            scored = scored_in_graph(loss, output, self._maker(found) or "")
            self.scored += [] if scored is None else [scored]

    def _maker(self, found: list[Tensor]) -> str | None:
        """The path of the module that returned the first of some tensors that is a probability."""
        for tensor in found:
            source = self.links.source_of(tensor) if tensor.grad_fn is not None and maker(tensor) else None
            if source is not None:
                return source[0]
        return None

    def _see_gradient(self, tally: ParameterTally, parameter: Tensor) -> None:
        tally.see_gradient(parameter, self.begun - 1)
        self.graded = self.begun

    def _around(self, call: Call) -> Place | None:
        above = call.nearest(self.running)
        return None if above is None else self.running[above]

    def before_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Before an optimizer step: keep the values of its parameters."""
        known = {id(each.parameter): each for each in self.parameters.values()}
        held = [
            (known[id(parameter)], group.get("lr", 0.0))
            for group in optimizer.param_groups
            for parameter in group["params"]
            if id(parameter) in known
        ]
        self._see_norm([each.parameter.grad for each, _ in held])
        self.steps += bool(held)
        self.other_steps += not held
        with torch.no_grad():
            for each, rate in held:
                each.begin_step(rate)

    def _see_norm(self, gradients: list[Tensor | None]) -> None:
        known = [norm for each in gradients if each is not None and (norm := norm_of(each)) is not None]
        if known:
            self.norms.append(
                torch.linalg.vector_norm(torch.stack([each.float().to(known[0].device) for each in known]))
            )

    def after_step(self, optimizer: Optimizer, *_: Any) -> None:
        """After an optimizer step: see how it changed them."""
        with torch.no_grad():
            for each in self.parameters.values():
                each.end_step()

    def evidence(self, run: Run) -> Evidence:
        """The gathered evidence."""
        for each in self.parameters.values():
            each.awaited = each.asked is not None and each.asked <= self.graded
        self.begun += 1  # a change by the last optimizer step counts as before the next call
        self._look_at_parameters()
        return Evidence(
            run=run,
            modules=dict(self.selection),
            parameters={name: each.facts() for name, each in self.parameters.items()},
            units=self._unit_facts(),
            loss=self.loss,
            error=self.error,
            steps=self.steps,
            other_steps=self.other_steps,
            same_samples=self.same_samples is not None and bool(self.same_samples),
            autocast=frozenset(self.autocast),
            uses=tuple(self.uses),
            suspects=(*self._suspects(), *self.changed),
            flows=self.links.flows(),
            hidden=tuple((each, count[0]) for each, count in self.hidden.values()),
            random=tuple(self.draws.found),
            growth={path: float(each) for path, each in self.growth.items()},
            norms=tuple(float(each) for each in self.norms),
            scored=(*self.scored, *self.scores.facts()),
            spots={key: spots.where for key, spots in self.locator.found.items()},
        )

    def _unit_facts(self) -> tuple[UnitFacts, ...]:
        places = Counter(tally.path for tally in self.units.values() if not tally.functional)
        return tuple(
            tally.facts(alone=not tally.functional and places[tally.path] == 1)
            for tally in self.units.values()
            if tally.seen
        )

    def _look_at_parameters(self) -> None:
        """Find parameters that are not finite; skipped if no parameter has changed since."""
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
        """Keep the version of a tensor when it was used, without keeping the tensor alive."""
        version = version_of(tensor)
        if version is not None:
            self.given[path, name, id(tensor)] = path, call, name, weakref.ref(tensor), version

    def _forget_what_is_gone(self) -> None:
        """Drop tensors that no longer exist, once they may be half of those noted."""
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
        """See whether the output is the same for every sample of the batch, although the input is not."""
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
    """Whether a tensor's values can be read: it is plain, and not of vmap, tracing or the meta device."""
    plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout == torch.strided and not tensor.is_meta
    if not plain or not tensor.is_floating_point() or not tensor.numel():
        return False
    return not is_traced(tensor) and not is_functorch_wrapped_tensor(tensor)


@contextmanager
def gathering(selection: Selection) -> Iterator[Gathering]:
    """A `with` block that gathers evidence on the selected modules and on all parameters of their model.

    All hooks are removed at its end.
    """
    found = Gathering(selection, paths={id(module): path for path, module in selection})
    hooks = make_hooks(before=found.begin, after=found.end, always=found.leave, order=LAST, compiled="leave out")
    try:
        found.meet_parameters()
        found.meet_hidden()
        found.undo.append(attach(selection, hooks).remove)
        found.undo.append(register_optimizer_step_pre_hook(found.before_step).remove)
        found.undo.append(register_optimizer_step_post_hook(found.after_step).remove)
        yield found
    finally:
        found.links.end()
        for undo in reversed(found.undo):
            undo()


def _expect_gradient(tally: ParameterTally, _: Tensor) -> None:
    tally.expect_gradient()


def _count(count: list[int], _: Tensor) -> None:
    count[0] += 1


def _can_be_linked(tensor: Tensor) -> bool:
    """Whether a tensor is of a floating or complex dtype, with an autograd graph that can be read."""
    plain = tensor.is_floating_point() or tensor.is_complex()
    return plain and not is_traced(tensor) and not is_functorch_wrapped_tensor(tensor)


def _tallies(model: Module, known: Mapping[str, ParameterTally]) -> dict[str, ParameterTally]:
    """A new tally for each parameter of a model without one, by its first name, with its NaN and Inf from the start.

    A parameter that replaces another of its class gets a new tally.
    """
    found: dict[str, ParameterTally] = {}
    seen: set[int] = set()
    elsewhere: Elsewhere | None = None  # found only if a parameter has no data, since that walks the model
    for module, own in paths(model):
        for name, parameter in module._parameters.items():
            if parameter is None or is_lazy(parameter) or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full = f"{own[0]}.{name}".removeprefix(".")
            old = known.get(full)
            if old is not None and _still(old, parameter):
                continue
            if parameter.is_meta and elsewhere is None:
                elsewhere = held_elsewhere(model)
            stored = read_elsewhere(elsewhere or {}, module, name)
            values = parameter if stored is None else stored
            found[full] = tally = ParameterTally(own[0], parameter, norm=norm_of(values), alike=alike(values))
            tally.elsewhere = stored is not None
            largest = largest_of(values)
            if largest is not None and not bool(largest.isfinite()):
                tally.nan, tally.inf = int(values.isnan().sum()), int(values.isinf().sum())
                found_at = spots(values)
                tally.where = "" if found_at is None else found_at.where
    return found


def _still(old: ParameterTally, parameter: Tensor) -> bool:
    """Whether a tally stays valid: for this parameter, for one that accelerate replaced, or for one of another
    class."""
    replaced = old.elsewhere and parameter.is_meta
    return old.parameter is parameter or replaced or type(old.parameter) is not type(parameter)
