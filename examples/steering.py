"""Steer a model: add the difference between two kinds of example to its activations, and see its answers move."""

import torch

import hookline
import hookline.demo
from hookline import edits
from hookline.testing import assert_unhooked

model = hookline.demo.model()
images, labels = hookline.demo.digits()
PLACE = "pool"

with hookline.watch(model, PLACE, keep="copy") as run, torch.no_grad():
    model(images)
activations = run[PLACE].output.value
direction = activations[labels == 3].mean(0) - activations.mean(0)

for scale in (0.0, 1.0, 2.0, 4.0):
    with hookline.edit(model, PLACE, output=edits.add(direction, scale=scale)), torch.no_grad():
        threes = (model(images).argmax(dim=1) == 3).float().mean().item()
    print(f"steered by {scale}: {threes:.0%} are read as a three")

assert_unhooked(model)
