"""Wrong uses: type checkers report each line that ends in `# wrong`, and no other. It is checked, not run."""

from torch import Tensor, nn

import hookline
from hookline import edits


def wrong(model: nn.Module, x: Tensor, run: hookline.Run, call: hookline.Call) -> None:
    run["0"].outptu  # wrong
    run["0"].output.maen  # wrong
    run["0"].output.stats.mean  # wrong
    run["0"].inputs[0].shap  # wrong
    run[0.5]  # wrong
    run.pages("run.html")  # wrong
    text: str = run["0"].output.mean  # wrong
    call.outputs  # wrong
    hookline.watch(model, keep="stat")  # wrong
    hookline.watch(model, grads="inputs")  # wrong
    hookline.watch(model, "0", "stats")  # wrong
    hookline.watch("model")  # wrong
    hookline.watch(model, 3)  # wrong
    hookline.on(model)  # wrong
    hookline.on(model, "0", print)  # wrong
    hookline.on(model, "0", after="print")  # wrong
    hookline.edit(model, "0", edits.zero())  # wrong
    hookline.edit(model, "0", output=2.0)  # wrong
    hookline.edit(model, output=edits.zero())  # wrong
    hookline.edits(model, "0")  # wrong
    hookline.edit.zero()  # wrong
    hookline.check()  # wrong
    hookline.check(model, x, rules=3)  # wrong
    hookline.diff(model)  # wrong
    hookline.diff(model, model, x, tolerances="tight")  # wrong
    hookline.profile(model, x, repeat="many")  # wrong
    hookline.guard(model, then="stop")  # wrong
    hookline.select(model, 3)  # wrong
    hookline.whatever  # wrong
