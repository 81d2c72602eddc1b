"""Callbacks for the `Trainer` of transformers: a monitor, and a guard."""

from typing import Any

from transformers import TrainerCallback

from hookline.engine.hook import Handle
from hookline.monitoring.live import LiveMonitor
from hookline.tools.guard import guard
from hookline.tools.monitor import monitor


class MonitorCallback(TrainerCallback):  # type: ignore[misc]  # it has no types
    """A monitor over the training of a `Trainer`: `Trainer(..., callbacks=[MonitorCallback(every=100, to="runs/a")])`.

    It takes the arguments of `hookline.monitor`, without model and optimizer. `callback.monitor` is the `LiveMonitor`,
    from the begin of the training on. Steps are those of the trainer: a training that is resumed from a checkpoint goes
    on at its step.
    """

    def __init__(self, *where: Any, **options: Any) -> None:
        self.where, self.options = where, options
        self.monitor: LiveMonitor | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to measure."""
        self.monitor = monitor(kwargs["model"], kwargs["optimizer"], *self.where, **self.options)
        if state.global_step:
            self.monitor.load_state_dict({"steps": state.global_step})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove the monitor; its figures stay."""
        if self.monitor is not None:
            self.monitor.stop()


class GuardCallback(TrainerCallback):  # type: ignore[misc]  # it has no types
    """A guard over the training of a `Trainer`; it takes the arguments of `hookline.guard`, without the model."""

    def __init__(self, *where: Any, **options: Any) -> None:
        self.where, self.options = where, options
        self.handle: Handle | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the guard."""
        self.handle = guard(kwargs["model"], *self.where, **self.options)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove it."""
        if self.handle is not None:
            self.handle.remove()
