"""Random numbers in evaluation: which calls drew some, and whether their code forgets to ask for the mode."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import Module

from hookline.engine.call import Call
from hookline.tools.rules.evidence import Evidence, Place
from hookline.tools.rules.finding import Finding, rule

DROPOUTS = frozenset(
    ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout")
)


@dataclass(slots=True)
class Draws:
    """The calls of a model in evaluation that drew random numbers of torch's, the innermost of each."""

    states: dict[Call, tuple[Place, tuple[Tensor, ...]]] = field(default_factory=dict)
    inside: set[Call] = field(default_factory=set)
    found: dict[Place, None] = field(default_factory=dict)

    def begin(self, call: Call, place: Place) -> None:
        """Keep the state of the generators before a call inside of a model in evaluation."""
        outermost = next((above for above in call.around() if above.parent is None), call)
        if not outermost.module.training and not call.recompute and not torch.compiler.is_compiling():
            self.states[call] = place, generators()

    def leave(self, call: Call) -> None:
        """Forget a call that raised."""
        self.states.pop(call, None)
        self.inside.discard(call)

    def end(self, call: Call) -> None:
        """Compare it after the call, where it ended well."""
        place, before = self.states.pop(call, (None, ()))
        inside = call in self.inside
        self.inside.discard(call)
        if place is None or all(map(torch.equal, before, generators())):
            return
        self.inside |= {above for above in call.around() if above in self.states}
        if not inside:
            self.found[place] = None


def generators() -> tuple[Tensor, ...]:
    """The states of torch's generators: the CPU's, and that of the present device where CUDA is in use."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states.append(torch.cuda.get_rng_state())
    return tuple(states)


@rule(
    "random-in-evaluation",
    advice="Pass the mode on: F.dropout(x, p, training=self.training), "
    "scaled_dot_product_attention(..., dropout_p=self.p if self.training else 0.0), or use nn.Dropout.",
)
def random_in_evaluation(evidence: Evidence) -> Iterator[Finding]:
    """A module that draws random numbers while the model is in evaluation: a warning where its code calls a dropout
    that is not told the mode, else a note, since a model may sample on purpose."""
    training = {(call.path, call.index) for call in evidence.run if call.training}
    first: dict[str, Place] = {}
    for place in evidence.random or ():
        if place not in training:
            first.setdefault(place[0], place)
    for path, (_, index) in first.items():
        module = evidence.module(path)
        line = None if module is None else modeless_dropout(type(module))
        if line is None:
            message = "draws random numbers in evaluation: two calls with the same input differ"
            yield Finding(path, message, call=index, severity="note", advice=ON_PURPOSE)
        else:
            yield Finding(path, f"`{line}` drops values in evaluation too", call=index, evidence={"code": line})


ON_PURPOSE = "Where that is not meant, look for a dropout, or noise, that does not ask self.training."


def modeless_dropout(kind: type[Module]) -> str | None:
    """The call in the code of a class of a function that drops values whatever the mode is; None where there is none,
    or the code is not at hand.

    `F.dropout(x)` drops by default; with `training=True` written out it is meant.
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
