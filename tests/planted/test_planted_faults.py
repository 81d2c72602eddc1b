"""Each planted fault is found: its rule names the module, and no other rule calls out what is not there."""

import pytest

import hookline
from planted.faults import FAULTS, Fault
from planted.healthy import HEALTHY


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_found(fault: Fault) -> None:
    findings = fault.find()

    assert findings
    told = {(finding.rule, finding.path) for finding in findings.at_least("warning")}
    assert (fault.rule, fault.path) in told
    assert {rule for rule, _ in told} == {fault.rule, *fault.also}


def test_there_is_a_fault_for_every_rule() -> None:
    assert {fault.rule for fault in FAULTS} == {rule.name for rule in hookline.RULES}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_above_a_note_is_found_in_healthy_training(name: str) -> None:
    findings = HEALTHY[name]()

    assert [str(finding) for finding in findings.at_least("warning")] == []
    assert findings.run.calls
