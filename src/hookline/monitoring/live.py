"""The monitor of a run that is going on: the steps of its optimizers, what is sampled, where samples go."""

import logging
import math
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from hookline.checking.finding import Finding
from hookline.engine.hook import Handle
from hookline.errors import AlertError, StoreError
from hookline.model.select import Selection
from hookline.model.sharded import rank_and_world
from hookline.monitoring.alerts import Alert, Course
from hookline.monitoring.gauges import Gauges, merged
from hookline.monitoring.journal import Journal, Name, parts_of
from hookline.monitoring.monitored import Monitor, read_journal
from hookline.monitoring.pyramid import Pyramid
from hookline.monitoring.sums import figures_of
from hookline.record.recorder import recording

Writer: TypeAlias = Callable[[int, Mapping[str, float]], Any]
"""A function of a step and its figures by name, such as "layers.0/output/rms"."""
Respond: TypeAlias = Literal["log", "raise"] | Callable[[Finding], Any]
"""What a monitor does with the finding of an alert."""
PAGED = 30.0  # seconds between two writings of the page
ALERTS = 1000  # findings in memory; the folder has all
FIRST = 10  # steps that are always sampled
logger = logging.getLogger("hookline")


class LiveMonitor(Monitor):
    """A `Monitor` that is attached to a model in training.

    - `step()`: ends a step, for what has no optimizer; else the first optimizer's step does;
    - `stop()`: removes it; a `with` block does so at its end;
    - `steps`: how many steps have ended;
    - `state_dict()`, `load_state_dict(state)`: to be saved with a checkpoint: a resumed run goes on at its step, and
      what the folder has of later steps is set aside;
    - `recent()`: the last steps that the recorder holds, all of them, not only those sampled. With a folder they are
      saved to `recent-STEP` in it at an alert, and where an exception leaves the block.
    """

    def __init__(
        self,
        selection: Selection,
        optimizers: Sequence[Optimizer],
        gauges: Gauges,
        *,
        every: int | Callable[[int], Any],
        figures: Sequence[str],
        folder: str | os.PathLike[str] | None,
        writers: Sequence[Writer],
        alerts: Sequence[Alert],
        then: Respond,
        save: str | os.PathLike[str] | None,
        recorder: int,
        page: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(type(selection.model).__name__)
        self.selection, self.gauges, self.figures = selection, gauges, [*figures]
        self.every, self.writers, self.rules, self.then, self.save_to = every, writers, alerts, then, save
        self.steps = 0
        self.resumed = self.sampled = False
        self.ring: deque[tuple[int, Tensor]] = deque(maxlen=recorder)
        self.hooks: Handle | None = None
        self.active: set[tuple[str, str, str, str]] = set()
        self.failing = False
        self.recording = ExitStack()
        self.run_of_step: Any = None
        self.page_file, self.paged = page, -math.inf
        self.wants_run = False
        rank, _ = rank_and_world()
        self.writes = rank in (None, 0) or not gauges.together
        header = {"model": self.model, "of": [*gauges.of], "figures": self.figures}
        self.journal = Journal(folder, header) if folder is not None and self.writes else None
        if self.journal is not None:
            self.folder = self.journal.folder
        self.handles = [self._follow(optimizer, is_first=not place) for place, optimizer in enumerate(optimizers)]
        self._begin()

    def _follow(self, optimizer: Optimizer, *, is_first: bool) -> Callable[[], None]:
        """Be called before and after each step of an optimizer; returns the undo."""

        def before(optimizer: Optimizer, *_: Any) -> None:
            if self.gauges.measuring:
                self.gauges.before_update(optimizer)

        def after(optimizer: Optimizer, *_: Any) -> None:
            if self.gauges.measuring:
                self.gauges.after_update(optimizer)
            if is_first:
                self.step()

        hooks = (optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after))

        def undo() -> None:
            for hook in hooks:
                hook.remove()

        return undo

    # Steps

    def _begin(self) -> None:
        """Begin a step: hooks are on the model only while one is measured, or if a compiled graph calls them."""
        self.sampled = self.is_sampled(self.steps)
        self.gauges.measuring = self.sampled or self.ring.maxlen != 0
        wanted = self.gauges.needs_calls and (self.gauges.measuring or self.gauges.in_graph)
        if wanted and self.hooks is None:
            self.hooks = self.gauges.attach()
        elif not wanted and self.hooks is not None:
            self.hooks.remove()
            self.hooks = None
        if self.wants_run:
            self.wants_run = False
            self.run_of_step = self.recording.enter_context(recording(self.selection, grads=True))

    def is_sampled(self, step: int) -> bool:
        """Whether the figures of a step are taken: those of the first ten always."""
        if step < FIRST:
            return True
        return bool(self.every(step)) if callable(self.every) else step % self.every == 0

    def step(self) -> None:
        """End a step: its figures are taken if it is sampled, and the next one begins."""
        if self.run_of_step is not None:
            self._save_run()
        try:
            if self.gauges.measuring:
                table = self.gauges.table()
                if self.ring.maxlen:
                    self.ring.append((self.steps, table))
                if self.sampled:
                    self._sample(table)
        finally:
            self.steps += 1
            self._begin()

    def _sample(self, table: Tensor) -> None:
        """Take the figures of this step."""
        host = merged(table) if self.gauges.together else table.cpu().double()
        names, values = self.read(host)
        before = torch.full((len(self.pyramid.recent), len(names)), math.nan)
        before[:, : self.pyramid.series] = self.pyramid.recent
        self.take(self.steps, names, values)
        if not self.writes:
            return
        numbers = values.tolist()
        pairs = [*zip(names, numbers, strict=True)]
        self._safely(lambda: self._journal(names, numbers))
        told = {"/".join((path or "model", of, figure)): value for (path, of, figure), value in pairs}
        for writer in self.writers:
            self._safely(partial(writer, self.steps, told))
        self._judge(Course(self.steps, names, values, before))
        if self.page_file is not None and time.monotonic() - self.paged > PAGED:
            self._write_page()

    def _write_page(self) -> None:
        """Write the page anew."""
        self.paged = time.monotonic()
        file = self.page_file
        if file is not None:
            self._safely(lambda: self._write("live", file))

    def read(self, table: Tensor) -> tuple[list[Name], Tensor]:
        """The names and values of a table of sums."""
        places = sorted(self.gauges.places, key=self.gauges.places.__getitem__)
        figures = figures_of(table, self.figures, self.gauges.names)
        figures[table[:, 0] == 0] = math.nan
        names = [(path, of, figure) for path, of in places for figure in self.figures]
        values = figures.flatten()
        matrices = self.gauges.matrices
        updates = [path for path, of in places if of == "update" and (path, "weight") in self.gauges.places]
        ratios = [(path, self._ratio(table, path)) for path in updates if path in matrices]
        if ratios:
            names += [(path, "update", "ratio") for path, _ in ratios]
            values = torch.cat([values, torch.tensor([ratio for _, ratio in ratios], dtype=values.dtype)])
        return self._in_order(names, values)

    def _in_order(self, names: list[Name], values: Tensor) -> tuple[list[Name], Tensor]:
        """Names and values with those that are known already first, in their order."""
        if names == self.names:
            return names, values
        known = {name: place for place, name in enumerate(names)}
        order = [*self.names, *(name for name in names if name not in {*self.names})]
        return order, values[torch.tensor([known[name] for name in order], dtype=torch.int64)]

    def _ratio(self, table: Tensor, name: str) -> float:
        """The norm of an update over that of its weight."""
        squares = 2
        update, weight = (float(table[self.gauges.places[name, kind], squares]) for kind in ("update", "weight"))
        return math.sqrt(update / weight) if weight > 0 else math.nan

    def _journal(self, names: list[Name], values: list[float]) -> None:
        if self.journal is not None:
            if not self.resumed and self.journal.file is None and parts_of(self.journal.folder):
                raise FolderInUseError(
                    f"{self.journal.folder} holds a run already; give another folder, or continue that one from a "
                    "checkpoint with monitor.load_state_dict(...)"
                )
            self.resumed = True
            self.journal.write(self.steps, names, values)

    def _safely(self, write: Callable[[], Any]) -> None:
        """Write somewhere. What cannot be written does not end the training: it warns once."""
        try:
            write()
        except FolderInUseError:
            raise
        except Exception as error:
            if not self.failing:
                warnings.warn(f"the monitor goes on without: {type(error).__name__}: {error}", stacklevel=2)
            self.failing = True

    # Alerts

    def _judge(self, course: Course) -> None:
        """Ask the alerts. One that lasts is reported once. Of what one rule finds in a step, the series that was
        measured first is the finding, and the others follow from it."""
        now = set()
        fresh = []
        for rule in self.rules:
            own = []
            for finding in rule(course):
                key = (finding.rule, finding.path, finding.evidence["of"], finding.evidence["figure"])
                now.add(key)
                if key not in self.active:
                    own.append(finding)
            if own:
                own.sort(key=self._measured)
                fresh.append(replace(own[0], consequences=tuple(own[1:])))
        self.active = now
        for finding in fresh:
            self._report(finding)

    def _measured(self, finding: Finding) -> int:
        """When in the step the series of a finding was measured."""
        order = self.gauges.order
        return order.get((finding.path, finding.evidence["of"]), len(order))

    def _report(self, finding: Finding) -> None:
        """Keep a finding, and do with it what was asked for."""
        self.alerts.append(finding)
        del self.alerts[:-ALERTS]
        self.wants_run = self.save_to is not None
        self._save_recent()
        journal = self.journal
        if journal is not None:
            self._safely(lambda: journal.alert(finding.to_dict()))
        if self.then == "raise":
            raise AlertError(str(finding))
        if self.then == "log":
            logger.warning("%s", finding)
        else:
            self.then(finding)

    def _save_run(self) -> None:
        """Save the run of the step after an alert, the first one."""
        run, self.run_of_step = self.run_of_step, None
        folder, self.save_to = self.save_to, None
        self.recording.close()
        if folder is not None:
            self._safely(lambda: run.save(folder))

    # The recorder

    def recent(self) -> Monitor:
        """The last steps that the recorder holds, as a monitor with every one of them: of this process alone.

        It is what led up to a jump, an exception or a NaN. They are copied from the device now.
        """
        found = Monitor(self.model)
        for step, table in self.ring:
            whole = torch.zeros(len(self.gauges.places), table.shape[1], dtype=torch.float64)
            whole[: len(table)] = table.cpu().double()
            found.take(step, *self.read(whole))
        return found

    def _save_recent(self) -> None:
        """Save what the recorder holds to the folder, where there are both."""
        if self.ring and self.journal is not None:
            folder = self.journal.folder / f"recent-{self.ring[-1][0]:012}"
            self._safely(lambda: self.recent().save(folder))

    # A run that goes on

    def state_dict(self) -> dict[str, Any]:
        """How many steps have ended, for a checkpoint."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on at the step of a checkpoint, with the course that the folder has up to there."""
        self.steps, self.resumed = int(state["steps"]), True
        if self.journal is not None:
            self.journal.close()
            before = read_journal(self.journal.folder, until=self.steps)
            self.names, self.pyramid, self.samples = before.names, before.pyramid, before.samples
            self.alerts[:] = before.alerts
        else:
            self.names, self.pyramid, self.samples = [], Pyramid(), 0
        self.gauges.found.clear()
        self._begin()

    def stop(self) -> None:
        """Remove everything from the model and the optimizers. The figures stay."""
        if self.page_file is not None and self.handles and self.writes:
            self._write_page()
        if self.hooks is not None:
            self.hooks.remove()
            self.hooks = None
        for undo in self.handles:
            undo()
        self.handles = []
        self.gauges.measuring = False
        self.gauges.found.clear()
        self.gauges.before.clear()
        self.recording.close()
        if self.journal is not None:
            self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._save_recent()
        self.stop()


class FolderInUseError(StoreError):
    """The folder holds another run."""
