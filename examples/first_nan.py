"""Which module made the first NaN? Its inputs are clean, its output is not."""

import torch
from torch import nn

import hookline

model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Softmax(dim=-1))
with torch.no_grad():
    model[2].weight[0, 0] = float("inf")

with hookline.watch(model, "*", inputs="stats") as run:
    model(torch.zeros(2, 4))

for call in run:
    if any(info.nan for info in call.outputs) and not any(info.nan for info in call.inputs):
        print(f"{call.path} ({call.type}) made the first NaN: {call.output.nan} of {call.output.count} elements")
        break
