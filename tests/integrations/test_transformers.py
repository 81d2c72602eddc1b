"""Tests of the callbacks for the Trainer of transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import hookline
from hookline.integrations.transformers import GuardCallback, MonitorCallback
from hookline.testing import assert_unhooked

DATA = [{"input_ids": torch.arange(8) % 7, "labels": torch.arange(8) % 7} for _ in range(48)]


@pytest.fixture
def trainer(tmp_path: Path) -> Any:
    def make(*callbacks: Any, steps: int = 12, accumulate: int = 1) -> Trainer:
        torch.manual_seed(0)
        config = GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=8, n_positions=8, bos_token_id=1, eos_token_id=1)
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "out"),
            max_steps=steps,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=accumulate,
            save_steps=6,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            logging_strategy="no",
        )
        return Trainer(GPT2LMHeadModel(config), arguments, train_dataset=DATA, callbacks=[*callbacks])

    return make


def steps_of(monitor: hookline.Monitor) -> list[int]:
    return monitor.series("transformer.h.0", "output", "rms").steps[:, 0].tolist()


def test_training_is_followed_step_by_step(trainer: Any, tmp_path: Path) -> None:
    callback = MonitorCallback("transformer.h.*", every=4, to=tmp_path / "run")
    made = trainer(callback, steps=14)
    made.train()
    assert steps_of(hookline.load(tmp_path / "run")) == [*range(10), 12]
    assert_unhooked(made.model)


def test_accumulated_batches_are_one_step(trainer: Any) -> None:
    callback = MonitorCallback("transformer.h.*", every=1)
    trainer(callback, steps=5, accumulate=2).train()
    assert steps_of(callback.monitor) == [*range(5)]


def test_weights_are_those_without_it(trainer: Any) -> None:
    watched = trainer(MonitorCallback(every=1), GuardCallback())
    watched.train()
    plain = trainer()  # which sets the seed anew
    plain.train()
    for mine, theirs in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_resumed_training_goes_on_at_its_step(trainer: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trainer(MonitorCallback("transformer.h.*", every=1, to=folder), steps=9).train()
    resumed = trainer(MonitorCallback("transformer.h.*", every=1, to=folder), steps=12)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))
    assert steps_of(hookline.load(folder)) == [*range(12)]


def test_guard_raises_at_the_first_nan(trainer: Any) -> None:
    made = trainer(GuardCallback("transformer.h.*"))
    with torch.no_grad():
        made.model.transformer.h[1].mlp.c_fc.weight[0, 0] = torch.nan
    with pytest.raises(hookline.NonFiniteError, match=r"transformer\.h\.1"):
        made.train()
