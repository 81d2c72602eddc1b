"""The rules of a check, what they judge by, and what they find. RULES is the list; causes come before consequences."""

from hookline.tools.rules.activity import collapsed_softmax, constant_output, dead_units, saturated
from hookline.tools.rules.backward import nonfinite_gradient
from hookline.tools.rules.evidence import Evidence
from hookline.tools.rules.finding import Finding, Findings, Rule, rule
from hookline.tools.rules.gradients import exploding_gradient, frozen_parameter, no_gradient, vanishing_gradient
from hookline.tools.rules.modules import device_changed, dtype_changed, never_called, one_value_norm, wrong_mode
from hookline.tools.rules.training import changed_in_place, large_update, unchanged_weight
from hookline.tools.rules.values import (
    near_overflow,
    nonfinite_input,
    nonfinite_loss,
    nonfinite_output,
    nonfinite_parameter,
    raised,
)

__all__ = ["RULES", "Evidence", "Finding", "Findings", "Rule", "rule"]

RULES: list[Rule] = [
    nonfinite_parameter,
    nonfinite_input,
    nonfinite_output,
    nonfinite_loss,
    nonfinite_gradient,
    one_value_norm,
    changed_in_place,
    raised,
    near_overflow,
    no_gradient,
    vanishing_gradient,
    exploding_gradient,
    never_called,
    frozen_parameter,
    wrong_mode,
    dead_units,
    saturated,
    collapsed_softmax,
    constant_output,
    dtype_changed,
    device_changed,
    large_update,
    unchanged_weight,
]
"""What `check` asks, in this order. Leave rules out with `check(..., rules=[...])`, or append to it for all checks."""
