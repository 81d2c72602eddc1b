"""Save a run, change the model, and find the first call whose statistics differ."""

import torch

import hookline
import hookline.demo

model = hookline.demo.model()
images, _ = hookline.demo.digits()


def record() -> hookline.Run:
    with hookline.watch(model) as run, torch.no_grad():
        model(images[:16])
    return run


record().save("before")
with torch.no_grad():
    model.attention.key.weight[0, 0] += 0.5

before, after = hookline.load("before"), record()
inner = [pair for pair in zip(before, after, strict=True) if not before.children(pair[0])]
first = next(new for old, new in inner if old.output.stats != new.output.stats)
print(f"first difference: {first.path}, call {first.index}")
