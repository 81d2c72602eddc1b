"""The rules of a check, the evidence they judge by, and their findings. In RULES causes come before consequences."""

from hookline.checking.activity import collapsed_softmax, constant_output, dead_units, saturated
from hookline.checking.backward import nonfinite_gradient
from hookline.checking.evidence import Evidence
from hookline.checking.finding import Finding, Findings, Rule, rule
from hookline.checking.frozen import frozen_norm_updates, unused_in_ddp
from hookline.checking.gradients import (
    exploding_activation,
    exploding_gradient,
    frozen_parameter,
    no_gradient,
    vanishing_gradient,
)
from hookline.checking.initial import alike_rows, unregistered_parameters
from hookline.checking.losses import loss_of_probabilities
from hookline.checking.modules import device_changed, dtype_changed, never_called, one_value_norm, wrong_mode
from hookline.checking.precision import lost_updates, underflow
from hookline.checking.randomness import random_in_evaluation
from hookline.checking.training import (
    changed_in_place,
    large_update,
    learning_rate_ended,
    no_zero_grad,
    unchanged_weight,
)
from hookline.checking.values import (
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
    unused_in_ddp,
    raised,
    near_overflow,
    underflow,
    unregistered_parameters,
    no_gradient,
    vanishing_gradient,
    exploding_gradient,
    exploding_activation,
    never_called,
    frozen_parameter,
    frozen_norm_updates,
    wrong_mode,
    random_in_evaluation,
    loss_of_probabilities,
    alike_rows,
    dead_units,
    saturated,
    collapsed_softmax,
    constant_output,
    dtype_changed,
    device_changed,
    no_zero_grad,
    learning_rate_ended,
    large_update,
    lost_updates,
    unchanged_weight,
]
"""The rules that `check` runs, in this order. Pick others with `check(..., rules=[...])`, or append for all checks."""
