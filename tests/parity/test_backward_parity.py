"""The oracle for gradients: any program of backward hooks does on ours, at each height, what it does on PyTorch's own call."""

import pytest
from hypothesis import HealthCheck, example, given, settings

from parity.backward_programs import Backward, Call, Flags, Register, programs, run_program, shapes
from parity.programs import ENGINES, Remove, pytorch

TENSORS = ("tensor",) * 4
CALL, BACKWARD = Call("root", False, True, True), Backward("backward", False)
UNMARK = Flags("right", "_backward_hooks", "unmark")


def hook(where, kind, doing="see"):
    return Register(where, kind, doing, 0, False)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(shapes=TENSORS, program=[hook("left", "full"), CALL, Remove(0), BACKWARD])
@example(shapes=TENSORS, program=[hook("left", "legacy"), CALL, BACKWARD, hook("left", "full")])
@example(shapes=TENSORS, program=[hook("left", "legacy", "scale"), hook(None, "legacy"), CALL, BACKWARD])
@example(shapes=("dict",) * 4, program=[hook("left", "legacy"), hook("right", "full"), CALL, BACKWARD])
@example(shapes=TENSORS, program=[hook("root", "pre", "scale"), hook("root", "full", "scale"), CALL, BACKWARD])
@example(shapes=TENSORS, program=[hook("right", "legacy"), CALL, UNMARK, CALL, BACKWARD])
@given(shapes=shapes, program=programs)
def test_a_program_of_backward_hooks_does_what_it_does_on_pytorchs_call(engine, shapes, program):
    assert run_program(engine, shapes, program) == run_program(pytorch, shapes, program)
