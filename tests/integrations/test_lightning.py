"""Tests of the callbacks for the Trainer of Lightning, where it is installed."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hookline
from hookline.testing import assert_unhooked

lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def steps_of(monitor: hookline.Monitor) -> list[int]:
    return monitor.series("layers.0", "output", "rms").steps[:, 0].tolist()


@pytest.fixture
def fit(tmp_path: Path) -> Any:
    class Model(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

        def training_step(self, batch: Any) -> Any:
            return self.layers(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    data = torch.utils.data.TensorDataset(torch.randn(40, 4, generator=torch.Generator().manual_seed(1)))

    def make(*callbacks: Any, steps: int = 12, checkpoint: str | None = None, model: Any = None) -> Any:
        made = model or Model()
        saving = lightning.callbacks.ModelCheckpoint(tmp_path / "saved", every_n_train_steps=6, save_top_k=-1)
        trainer = lightning.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*callbacks, saving],
            default_root_dir=tmp_path,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(made, torch.utils.data.DataLoader(data, batch_size=4), ckpt_path=checkpoint)
        return made

    return make


def test_fit_is_followed_step_by_step(fit: Any) -> None:
    from hookline.integrations.lightning import MonitorCallback

    callback = MonitorCallback("layers.*", every=4)
    model = fit(callback, steps=14)
    assert steps_of(callback.monitor) == [*range(10), 12]  # type: ignore[arg-type]
    assert_unhooked(model)


def test_resumed_fit_goes_on_at_its_step(fit: Any, tmp_path: Path) -> None:
    from hookline.integrations.lightning import MonitorCallback

    folder = tmp_path / "run"
    fit(MonitorCallback("layers.*", every=1, to=folder), steps=9)
    (saved,) = [path for path in (tmp_path / "saved").iterdir() if "step=6" in path.name]
    fit(MonitorCallback("layers.*", every=1, to=folder), steps=12, checkpoint=str(saved))
    assert steps_of(hookline.load(folder)) == [*range(12)]


def test_guard_raises_at_the_first_nan(fit: Any) -> None:
    from hookline.integrations.lightning import GuardCallback

    model = fit(steps=1)
    with torch.no_grad():
        model.layers[2].weight[0, 0] = torch.nan
    with pytest.raises(hookline.NonFiniteError, match=r"layers\.2"):
        fit(GuardCallback(), model=model)
    assert_unhooked(model)
