"""Change what a module gives, for one block of code, and see that nothing is left behind."""

import hookline
import hookline.demo
from hookline.testing import assert_unhooked

model = hookline.demo.model()
images, labels = hookline.demo.digits()


def accuracy() -> float:
    return (model(images).argmax(dim=1) == labels).float().mean().item()


def silence(call: hookline.Call) -> None:
    call.output = call.output * 0


print(f"as trained: {accuracy():.3f}")
with hookline.on(model, "attention", after=silence):
    print(f"without attention: {accuracy():.3f}")

assert_unhooked(model)
print(f"afterwards: {accuracy():.3f}")
