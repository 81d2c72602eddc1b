"""Random numbers in eval mode: the calls that drew them, and dropouts in the code that ignore the mode."""

import ast
import inspect
import textwrap
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from hookline.engine.call import Call

Place: TypeAlias = tuple[str, int]  # a call: the path of its module, and its index
DROPOUTS = frozenset(
    ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout")
)


@dataclass(slots=True)
class Draws:
    """Finds the innermost calls of a model in eval mode that drew random numbers from torch's generators."""

    states: dict[Call, tuple[Place, tuple[Tensor, ...]]] = field(default_factory=dict)
    inside: set[Call] = field(default_factory=set)
    found: dict[Place, None] = field(default_factory=dict)

    def begin(self, call: Call, place: Place) -> None:
        """Keep the state of the generators before a call inside a model in eval mode."""
        outermost = next((above for above in call.around() if above.parent is None), call)
        if not outermost.module.training and not call.recompute and not torch.compiler.is_compiling():
            self.states[call] = place, generators()

    def leave(self, call: Call) -> None:
        """Forget a call that raised."""
        self.states.pop(call, None)
        self.inside.discard(call)

    def end(self, call: Call) -> None:
        """Compare the state after a call that did not raise."""
        place, before = self.states.pop(call, (None, ()))
        inside = call in self.inside
        self.inside.discard(call)
        if place is None or all(map(torch.equal, before, generators())):
            return
        self.inside |= {above for above in call.around() if above in self.states}
        if not inside:
            self.found[place] = None


def generators() -> tuple[Tensor, ...]:
    """The states of torch's generators: the CPU's, and that of the current device if CUDA is in use."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states.append(torch.cuda.get_rng_state())
    return tuple(states)


def modeless_dropout(kind: type[Module]) -> str | None:
    """The source of a call in a class's code that drops values in every mode; None without one, or without the code.

    `F.dropout(x)` drops by default. An explicit `training=True` is taken as intended.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return None
    return next(
        (ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_modeless(node)), None
    )


def _is_modeless(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    keywords = {each.arg: each.value for each in node.keywords}
    if None in keywords:  # **options
        return False
    if name in DROPOUTS:
        is_own = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "self"
        return not is_own and len(node.args) < 3 and "training" not in keywords and "train" not in keywords
    if name == "scaled_dot_product_attention":
        chance = keywords.get("dropout_p") or (node.args[4] if len(node.args) > 4 else None)
        zero = isinstance(chance, ast.Constant) and not chance.value
        return chance is not None and not zero and "training" not in ast.unparse(chance)
    return False
