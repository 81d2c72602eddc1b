"""Plans: the hooks of a module sorted once, when they change, so that a call runs them flat."""

from dataclasses import dataclass

from hookline.engine.hook import Hook, Phase, Step, in_order


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one module by phase, each phase in the order in which it runs; of the backward phases the hooks,
    since one may be removed before they run. `gradients` says that there are any of these."""

    before: tuple[Step, ...]
    after: tuple[Step, ...]
    always: tuple[Step, ...]
    backward_before: tuple[Hook, ...]
    backward: tuple[Hook, ...]
    gradients: bool
    hooks: tuple[Hook, ...]

    def hook_of(self, step: Step, phase: Phase) -> Hook:
        """The hook that a step of one phase came from, for the note on an error."""
        return next(hook for hook in self.hooks if hook.step is step and hook.phase == phase)


def decide(hooks: tuple[Hook, ...]) -> Plan:
    """The plan for these hooks."""
    before, after, always = (
        tuple(hook.step for hook in in_order(hooks, phase)) for phase in ("before", "after", "always")
    )
    backward_before, backward = in_order(hooks, "backward_before"), in_order(hooks, "backward")
    return Plan(before, after, always, backward_before, backward, bool(backward_before or backward), hooks)


NO_STEPS = decide(())
