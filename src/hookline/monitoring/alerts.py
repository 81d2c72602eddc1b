"""Alerts: rules on the course of figures, which give findings."""

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from hookline.checking.finding import Finding, Severity
from hookline.errors import ArgumentError
from hookline.messages import figure as told
from hookline.monitoring.journal import Name

ENOUGH = 5  # samples before a course can be judged


@dataclass(frozen=True, slots=True)
class Course:
    """What alerts look at: the last samples of every series.

    - `step`: the step that was sampled now; `names`: of each series, its path, what it is of, and its figure;
    - `values`: the sample now [series]; `before`: the samples before it [samples, series], NaN where there is none.
    """

    step: int
    names: Sequence[Name]
    values: Tensor
    before: Tensor

    def of(self, figure: str, of: Sequence[str] = (), where: str = "**") -> Tensor:
        """Which series are of a figure: a mask [series]."""
        return torch.tensor(
            [name[2] == figure and (not of or name[1] in of) and matches(name[0], where) for name in self.names],
            dtype=torch.bool,
        )

    def typical(self) -> Tensor:
        """The median of the samples before, of each series; NaN where there are fewer than five."""
        counts = (~self.before.isnan()).sum(0)
        middle = self.before.nanmedian(0).values
        return torch.where(counts >= ENOUGH, middle, torch.nan)


class Alert(Protocol):
    """A rule on the course of figures."""

    def __call__(self, course: Course) -> Iterator[Finding]:
        """A finding for each series that breaks the rule."""
        ...


def matches(path: str, where: str) -> bool:
    """Whether a path is one of a glob."""
    return where == "**" or fnmatch.fnmatchcase(path, where)


def findings(
    rule: str, course: Course, bad: Tensor, message: str, advice: str, severity: Severity = "warning"
) -> Iterator[Finding]:
    """A finding for each series of a mask. The message may use {step}, {value}, {typical}, {of}, {figure}."""
    typical = course.typical()
    for place in bad.nonzero()[:, 0].tolist():
        path, of, figure = course.names[place]
        value, middle = float(course.values[place]), float(typical[place])
        text = message.format(value=told(value), typical=told(middle), of=of, figure=figure, step=course.step)
        evidence = {"step": course.step, "of": of, "figure": figure, "value": value, "typical": middle}
        yield Finding(path, text, rule=rule, severity=severity, advice=advice, evidence=evidence)


@dataclass(frozen=True, slots=True)
class jump:
    """A figure that is more than `factor` times the median of its last 16 samples, and more than twice the largest of
    them, as at the begin of a spike.

    `of` restricts it to some of "output", "grad", "weight", "weight_grad" and "update"; `where` is a glob of paths.
    """

    figure: str = "rms"
    factor: float = 10.0
    of: tuple[str, ...] = ()
    where: str = "**"
    rule: str = field(default="jump", init=False)

    def __post_init__(self) -> None:
        if not self.factor > 1:
            raise ArgumentError(f"factor must be above 1, not {self.factor!r}")

    def __call__(self, course: Course) -> Iterator[Finding]:
        """Findings of this sample."""
        typical, largest = course.typical(), course.before.nan_to_num(0.0).amax(0)
        bad = course.of(self.figure, self.of, self.where) & (typical > 0)
        bad &= (course.values > self.factor * typical) & (course.values > 2 * largest)
        message = "{of} {figure} jumped at step {step}: {value}, from a median of {typical}"
        advice = "Look at the batch of this step; lower the learning rate, warm it up, or clip the gradient."
        yield from findings(self.rule, course, bad, message, advice)


@dataclass(frozen=True, slots=True)
class drift:
    """A figure whose last five samples are all above `factor` times, or below 1 / `factor` of, its first ones in
    the last 16."""

    figure: str = "rms"
    factor: float = 4.0
    of: tuple[str, ...] = ()
    where: str = "**"
    rule: str = field(default="drift", init=False)

    def __call__(self, course: Course) -> Iterator[Finding]:
        """Findings of this sample."""
        recent = torch.cat([course.before, course.values[None]])[-ENOUGH:]
        first = course.before[: len(course.before) - ENOUGH]
        enough = (~first.isnan()).sum(0) >= ENOUGH
        start = first.nanmedian(0).values
        far = (recent > self.factor * start).all(0) | (recent < start / self.factor).all(0)
        bad = course.of(self.figure, self.of, self.where) & enough & far & (start > 0)
        message = "{of} {figure} drifted until step {step}: {value}, from a median of {typical}"
        yield from findings(
            self.rule, course, bad, message, "Compare the schedule of the learning rate, and the weight decay."
        )


@dataclass(frozen=True, slots=True)
class dead:
    """An output, or a gradient of a weight, that has been all zeros in the last `samples` samples."""

    samples: int = 3
    where: str = "**"
    rule: str = field(default="dead", init=False)

    def __call__(self, course: Course) -> Iterator[Finding]:
        """Findings of this sample."""
        recent = torch.cat([course.before, course.values[None]])[-self.samples :]
        own = course.of("zeros", ("output", "grad", "weight_grad"), self.where)
        bad = own & (len(recent) == self.samples) & (recent == 1).all(0)
        advice = "Look at what comes before: a dead activation, a mask, a loss that does not depend on it."
        yield from findings(self.rule, course, bad, "{of} is all zeros at step {step}", advice)


@dataclass(frozen=True, slots=True)
class exploding:
    """A figure above `limit`, or one that has grown in each of the last eight samples, tenfold in all."""

    figure: str = "rms"
    limit: float = 1e4
    of: tuple[str, ...] = ("output", "grad", "weight_grad")
    where: str = "**"
    rule: str = field(default="exploding", init=False)

    def __call__(self, course: Course) -> Iterator[Finding]:
        """Findings of this sample."""
        recent = torch.cat([course.before, course.values[None]])[-8:]
        grows = (recent.diff(dim=0) > 0).all(0) & (recent[-1] > 10 * recent[0]) & (len(recent) == 8)
        bad = course.of(self.figure, self.of, self.where) & ((course.values > self.limit) | grows)
        advice = "Clip the gradient, lower the learning rate, or look at the initial weights."
        yield from findings(self.rule, course, bad, "{of} {figure} explodes at step {step}: {value}", advice)


@dataclass(frozen=True, slots=True)
class update_ratio:
    """An update of a weight matrix outside a share of its norm, from `low` to `high`. A usual one is about 0.001."""

    low: float = 1e-6
    high: float = 0.1
    where: str = "**"
    rule: str = field(default="update-ratio", init=False)

    def __call__(self, course: Course) -> Iterator[Finding]:
        """Findings of this sample."""
        own = course.of("ratio", ("update",), self.where)
        bad = own & ((course.values > self.high) | (course.values < self.low)) & course.values.isfinite()
        advice = "Change the learning rate of this parameter, or its initial scale."
        yield from findings(self.rule, course, bad, "step {step} changed it by {value} of its norm", advice)


@dataclass(frozen=True, slots=True)
class nonfinite:
    """An output, gradient or weight with NaN or Inf."""

    where: str = "**"
    rule: str = field(default="nonfinite", init=False)

    def __call__(self, course: Course) -> Iterator[Finding]:
        """Findings of this sample."""
        bad = course.of("unfinite", (), self.where) & (course.values > 0)
        advice = "hookline.guard(model) raises at the module that produced the first one."
        yield from findings(
            self.rule, course, bad, "{of} has {value} values that are NaN or Inf at step {step}", advice, "error"
        )
