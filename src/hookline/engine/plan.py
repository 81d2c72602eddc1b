"""Plans: the hooks of a module sorted once, when they change, so that a call runs them flat."""

from collections.abc import Iterable
from dataclasses import dataclass

from hookline.engine.graph_values import MORE, Sees
from hookline.engine.hook import Hook, Phase, Step, in_order


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one module by phase, each phase in the order in which it runs; of the backward phases the hooks,
    since one may be removed before they run. `gradients` says that there are any of these. What `ended` steps raise is
    raised to the caller: the call itself has succeeded."""

    before: tuple[Step, ...]
    after: tuple[Step, ...]
    always: tuple[Step, ...]
    ended: tuple[Step, ...]
    backward_before: tuple[Hook, ...]
    backward: tuple[Hook, ...]
    gradients: bool
    hooks: tuple[Hook, ...]
    compiled: "CompiledPlan"

    def hook_of(self, step: Step, phase: Phase) -> Hook:
        """The hook that a step of one phase came from, for the note on an error."""
        return next(hook for hook in self.hooks if hook.step is step and hook.phase == phase)


def decide(hooks: tuple[Hook, ...]) -> Plan:
    """The plan for these hooks."""
    before, after, always = _steps(hooks, "before"), _steps(hooks, "after"), _steps(hooks, "always")
    backward_before, backward = in_order(hooks, "backward_before"), in_order(hooks, "backward")
    gradients = bool(backward_before or backward)
    ended = _steps(hooks, "ended")
    return Plan(before, after, always, ended, backward_before, backward, gradients, hooks, in_a_graph(hooks))


@dataclass(frozen=True, slots=True)
class CompiledPlan:
    """The steps of one module in a compiled graph: those that are traced into it, those that its taps call and what of
    tensors these look at, their gradients too or not, and the hooks that do not run there."""

    traced: bool
    traced_before: tuple[Step, ...]
    traced_after: tuple[Step, ...]
    taps: bool
    tapped_before: tuple[Step, ...]
    tapped_after: tuple[Step, ...]
    tapped_always: tuple[Step, ...]
    sees_before: Sees
    sees_after: Sees
    sees_gradients: bool
    leaves_out: bool
    left_out: tuple[Hook, ...]


def in_a_graph(hooks: tuple[Hook, ...]) -> CompiledPlan:
    """The plan for these hooks in a compiled graph."""
    forward = [hook for hook in hooks if hook.phase in ("before", "after", "always")]
    traced = tuple(hook for hook in forward if hook.compiled == "trace")
    tapped = tuple(hook for hook in forward if hook.compiled == "callback")
    left_out = tuple(hook for hook in hooks if hook not in traced and hook not in tapped and hook.compiled != "outside")
    return CompiledPlan(
        traced=bool(traced),
        traced_before=_steps(traced, "before"),
        traced_after=_steps(traced, "after") + _steps(traced, "always"),
        taps=bool(tapped),
        tapped_before=_steps(tapped, "before"),
        tapped_after=_steps(tapped, "after"),
        tapped_always=_steps(tapped, "always"),
        sees_before=_most(hook.sees for hook in tapped if hook.phase == "before"),
        sees_after=_most(hook.sees for hook in tapped if hook.phase != "before"),
        sees_gradients=any(hook.sees_gradients for hook in tapped),
        leaves_out=bool(left_out),
        left_out=left_out,
    )


def _most(sees: Iterable[Sees]) -> Sees:
    return max(sees, key=MORE.index, default="shapes")


def _steps(hooks: tuple[Hook, ...], phase: Phase) -> tuple[Step, ...]:
    return tuple(hook.step for hook in in_order(hooks, phase))


NO_STEPS = decide(())
