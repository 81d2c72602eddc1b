"""A check of a healthy model finds nothing above a note: over the zoo, in training and in evaluation, and of the demo."""

from collections.abc import Iterable
from functools import cache

import pytest
import torch
from torch.nn.functional import cross_entropy

import hookline
import hookline.demo
from zoo.models import TRANSFORMERS, ZOO, Specimen
from zoo.runs import expected, one_thread, seed_everything

# Those of the zoo that have, on purpose, what a check is there to find; each with the rule that finds it.
UNHEALTHY = {
    "not_a_number": "nonfinite-output",  # gives the roots and logarithms of numbers below 0
    "frozen_trunk": "no-gradient",  # runs parameters that ask for gradients under torch.no_grad()
    "returns_integers_within": "no-gradient",  # a layer before an argmax cannot be trained
}
HEALTHY = [each for each in ZOO if each.name not in UNHEALTHY]


@cache
def checked(specimen: Specimen, *, train: bool, loss: bool = True) -> tuple[hookline.Finding, ...]:
    """What a check finds, which the page on checks counts too."""
    findings = check(specimen, train=train, loss=loss)
    assert findings.error is None
    assert findings.run.calls
    return findings.found


def check(specimen: Specimen, *, train: bool, loss: bool) -> hookline.Findings:
    with one_thread(), expected(specimen.warnings):
        model = specimen.build().train(train)
        args, kwargs = specimen.inputs()
        seed_everything()
        if args or kwargs:
            return hookline.check(model, *args, loss=specimen.loss if loss else None, **kwargs)
        with hookline.check(model) as findings:
            specimen.loss(model()).backward()
        return findings


def above_notes(found: Iterable[hookline.Finding]) -> list[str]:
    return [str(finding) for finding in found if finding.severity != "note"]


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("specimen", HEALTHY, ids=lambda specimen: specimen.name)
def test_nothing_above_a_note_is_found_in_a_healthy_model(specimen: Specimen, train: bool) -> None:
    assert above_notes(checked(specimen, train=train)) == []


@pytest.mark.parametrize("specimen", TRANSFORMERS, ids=lambda specimen: specimen.name)
def test_nor_with_the_loss_that_a_check_takes_by_default(specimen: Specimen) -> None:
    assert above_notes(checked(specimen, train=True, loss=False)) == []


@pytest.mark.parametrize(("name", "rule"), UNHEALTHY.items())
def test_what_is_unhealthy_on_purpose_is_found(name: str, rule: str) -> None:
    specimen = next(each for each in ZOO if each.name == name)

    assert {finding.rule for finding in checked(specimen, train=True) if finding.severity != "note"} == {rule}


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_nothing_is_found_in_the_demo(train: bool) -> None:
    images, labels = hookline.demo.digits()
    model = hookline.demo.model().train(train)

    assert list(hookline.check(model, images[:32], loss=lambda output: cross_entropy(output, labels[:32]))) == []


@pytest.mark.slow
def test_nothing_is_found_while_the_demo_is_trained() -> None:
    images, labels = hookline.demo.digits()
    model = hookline.demo.model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with hookline.check(model) as findings:
        for start in range(0, 96, 32):
            optimizer.zero_grad()
            cross_entropy(model(images[start : start + 32]), labels[start : start + 32]).backward()
            optimizer.step()

    assert list(findings) == []
