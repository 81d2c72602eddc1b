"""Callbacks for the `Trainer` of Lightning: a monitor, and a guard."""

from typing import Any

from lightning.pytorch import Callback

from hookline.engine.hook import Handle
from hookline.monitoring.live import LiveMonitor
from hookline.tools.guard import guard
from hookline.tools.monitor import monitor


class MonitorCallback(Callback):  # type: ignore[misc]  # it has no types
    """A monitor over `fit`: `Trainer(callbacks=[MonitorCallback(every=100, to="runs/a")])`.

    It takes the arguments of `hookline.monitor`, without model and optimizer. `callback.monitor` is the `LiveMonitor`.
    Its step is saved with Lightning's checkpoints, and a resumed training goes on there.
    """

    def __init__(self, *where: Any, **options: Any) -> None:
        self.where, self.options = where, options
        self.monitor: LiveMonitor | None = None
        self.resumed: dict[str, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to measure."""
        self.monitor = monitor(pl_module, trainer.optimizers, *self.where, **self.options)
        if self.resumed is not None:
            self.monitor.load_state_dict(self.resumed)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Remove the monitor; its figures stay."""
        if self.monitor is not None:
            self.monitor.stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Remove the monitor; its figures stay."""
        self.on_train_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The step, for a checkpoint."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on at the step of a checkpoint."""
        self.resumed = state_dict or None


class GuardCallback(Callback):  # type: ignore[misc]  # it has no types
    """A guard over `fit`; it takes the arguments of `hookline.guard`, without the model."""

    def __init__(self, *where: Any, **options: Any) -> None:
        self.where, self.options = where, options
        self.handle: Handle | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Add the guard."""
        self.handle = guard(pl_module, *self.where, **self.options)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Remove it."""
        if self.handle is not None:
            self.handle.remove()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Remove it."""
        self.on_train_end(trainer, pl_module)
