"""A training run goes wrong at some step. Where did it begin, and what did it do to the weights?"""

import torch
from torch import nn

import hookline
from hookline import alerts

torch.manual_seed(0)
layers = [nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.GELU()) for _ in range(6)]
model = nn.Sequential(*layers, nn.Linear(32, 8))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

rules = [alerts.jump("rms", 8), alerts.nonfinite(), alerts.update_ratio(high=0.5)]
with hookline.monitor(model, optimizer, every=10, to="run", alert=rules, then=print) as monitor:
    for step in range(400):
        x = torch.randn(64, 32)
        optimizer.param_groups[0]["lr"] = 0.3 if step == 250 else 1e-3  # a schedule with a mistake
        optimizer.zero_grad()
        (model(x) - x[:, :8]).square().mean().backward()
        optimizer.step()

print(monitor.summary)
for shift in monitor.around(250)[:4]:
    print(f"step {shift.step}: {shift.path} {shift.of} {shift.figure} {shift.typical:.3g} -> {shift.value:.3g}")
monitor.page("run.html")
