"""The Trainer of transformers under a monitor: five lines more, and a page that follows the run."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import hookline
from hookline.integrations.transformers import MonitorCallback

torch.manual_seed(0)
model = GPT2LMHeadModel(
    GPT2Config(n_layer=3, n_embd=32, n_head=2, vocab_size=64, n_positions=32, bos_token_id=1, eos_token_id=1)
)
texts = [{"input_ids": (ids := (torch.arange(32) * step) % 61), "labels": ids} for step in range(1, 129)]

callback = MonitorCallback(
    "transformer.h.*", every=10, of=("output", "grad", "update", "weight"), to="run", page="live.html"
)
arguments = TrainingArguments(
    output_dir="out",
    max_steps=30,
    per_device_train_batch_size=16,
    learning_rate=1e-3,
    report_to=[],
    use_cpu=True,
    disable_tqdm=True,
    logging_strategy="no",
    save_strategy="no",
)
Trainer(model, arguments, train_dataset=texts, callbacks=[callback]).train()

run = hookline.load("run")
print(run.summary)
for layer in range(3):
    series = run.series(f"transformer.h.{layer}", "output", "rms")
    print(f"transformer.h.{layer} output rms {float(series.mean[0]):.2f} -> {series.last:.2f}")
