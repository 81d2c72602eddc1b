"""Plans: the hooks of a module, sorted once when they change, so that a call just runs them in order."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch.nn import Module

from hookline.engine.graph_values import MORE, Sees
from hookline.engine.hook import Hook, HookFunction, Phase, SeenFrom, in_order

AsSeen: TypeAlias = Callable[[Hook], HookFunction]
FORWARD_PHASES: tuple[Phase, ...] = ("before", "after", "always", "ended")
BACKWARD_PHASES: tuple[Phase, ...] = ("backward_before", "backward")


@dataclass(frozen=True, slots=True)
class Plan:
    """The hooks of one module by phase, each phase in the order in which it runs.

    - `backward_before`, `backward`: with the hooks, since one may be removed before they run;
    - `gradients`: whether there are any of these;
    - `ended`: run after the call has succeeded; the caller receives what they raise.
    """

    before: tuple[HookFunction, ...]
    after: tuple[HookFunction, ...]
    always: tuple[HookFunction, ...]
    ended: tuple[HookFunction, ...]
    backward_before: tuple[tuple[Hook, HookFunction], ...]
    backward: tuple[tuple[Hook, HookFunction], ...]
    gradients: bool
    hooks: tuple[Hook, ...]
    compiled: "CompiledPlan"

    def hook_of(self, function: HookFunction, phase: Phase) -> Hook:
        """The hook that a function of one phase belongs to, for the note on an error."""
        if isinstance(function, SeenFrom):
            return function.hook
        return next(hook for hook in self.hooks if hook.function is function and hook.phase == phase)


def decide(hooks: tuple[Hook, ...], module: Module | None = None, path: str = "") -> Plan:
    """The plan for these hooks, for one module if it is given; `path` is the path of its calls."""
    as_seen: AsSeen = (lambda hook: hook.function) if module is None else (lambda hook: hook.seen_from(module, path))
    functions = partial(_functions, hooks, as_seen=as_seen)
    before, after, always, ended = (functions(phase) for phase in FORWARD_PHASES)
    backward_before, backward = (
        tuple((hook, as_seen(hook)) for hook in in_order(hooks, phase)) for phase in BACKWARD_PHASES
    )
    gradients = bool(backward_before or backward)
    return Plan(before, after, always, ended, backward_before, backward, gradients, hooks, in_a_graph(hooks, as_seen))


@dataclass(frozen=True, slots=True)
class CompiledPlan:
    """The hooks of one module in a compiled graph.

    - `traced`, `traced_*`: those that become part of it;
    - `taps`, `tapped_*`: those that its taps call; `sees_*`: what these read of tensors, and whether of gradients;
    - `leaves_out`, `left_out`: those that do not run in it, with a warning.
    """

    traced: bool
    traced_before: tuple[HookFunction, ...]
    traced_after: tuple[HookFunction, ...]
    taps: bool
    tapped_before: tuple[HookFunction, ...]
    tapped_after: tuple[HookFunction, ...]
    tapped_always: tuple[HookFunction, ...]
    sees_before: Sees
    sees_after: Sees
    sees_gradients: bool
    leaves_out: bool
    left_out: tuple[Hook, ...]


def in_a_graph(hooks: tuple[Hook, ...], as_seen: AsSeen) -> CompiledPlan:
    """The plan for these hooks in a compiled graph."""
    forward = [hook for hook in hooks if hook.phase in ("before", "after", "always")]
    traced = tuple(hook for hook in forward if hook.compiled == "trace")
    tapped = tuple(hook for hook in forward if hook.compiled == "callback")
    left_out = tuple(hook for hook in hooks if hook not in traced and hook not in tapped and hook.compiled != "outside")
    return CompiledPlan(
        traced=bool(traced),
        traced_before=_functions(traced, "before", as_seen),
        traced_after=_functions(traced, "after", as_seen) + _functions(traced, "always", as_seen),
        taps=bool(tapped),
        tapped_before=_functions(tapped, "before", as_seen),
        tapped_after=_functions(tapped, "after", as_seen),
        tapped_always=_functions(tapped, "always", as_seen),
        sees_before=_most(hook.sees for hook in tapped if hook.phase == "before"),
        sees_after=_most(hook.sees for hook in tapped if hook.phase != "before"),
        sees_gradients=any(hook.sees_gradients for hook in tapped),
        leaves_out=bool(left_out),
        left_out=left_out,
    )


def _most(sees: Iterable[Sees]) -> Sees:
    return max(sees, key=MORE.index, default="shapes")


def _functions(hooks: tuple[Hook, ...], phase: Phase, as_seen: AsSeen) -> tuple[HookFunction, ...]:
    return tuple(as_seen(hook) for hook in in_order(hooks, phase))


NO_HOOKS = decide(())
