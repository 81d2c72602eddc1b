"""Plans: the hooks of a module sorted once, when they change, so that a call runs them flat."""

from dataclasses import dataclass

from hookline.engine.hook import Hook, Phase, Step, in_order


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one module by phase, each phase in the order in which it runs."""

    before: tuple[Step, ...]
    after: tuple[Step, ...]
    always: tuple[Step, ...]
    hooks: tuple[Hook, ...]

    def hook_of(self, step: Step, phase: Phase) -> Hook:
        """The hook that a step of one phase came from, for the note on an error."""
        return next(hook for hook in self.hooks if hook.step is step and hook.phase == phase)


def decide(hooks: tuple[Hook, ...]) -> Plan:
    """The plan for these hooks."""
    before, after, always = (
        tuple(hook.step for hook in in_order(hooks, phase)) for phase in ("before", "after", "always")
    )
    return Plan(before, after, always, hooks)


NO_STEPS = decide(())
