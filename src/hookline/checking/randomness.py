"""The rule on random numbers in eval mode, as `hookline.record.draws` finds them."""

from collections.abc import Iterator

from hookline.checking.evidence import Evidence
from hookline.checking.finding import Finding, rule
from hookline.engine.forwarding import original_class
from hookline.record.draws import Place, modeless_dropout


@rule(
    "random-in-evaluation",
    advice="Pass the mode: F.dropout(x, p, training=self.training), "
    "scaled_dot_product_attention(..., dropout_p=self.p if self.training else 0.0), or use nn.Dropout.",
)
def random_in_evaluation(evidence: Evidence) -> Iterator[Finding]:
    """A module that draws random numbers while the model is in eval mode. A warning where its code calls a dropout
    without the mode; otherwise a note, since a model may sample on purpose."""
    training = {(call.path, call.index) for call in evidence.run if call.training}
    first: dict[str, Place] = {}
    for place in evidence.random or ():
        if place not in training:
            first.setdefault(place[0], place)
    for path, (_, index) in first.items():
        module = evidence.module(path)
        line = None if module is None else modeless_dropout(original_class(module))
        if line is None:
            message = "draws random numbers in eval mode: two calls with the same input differ"
            yield Finding(path, message, call=index, severity="note", advice=ON_PURPOSE)
        else:
            yield Finding(path, f"`{line}` drops values in eval mode too", call=index, evidence={"code": line})


ON_PURPOSE = "If that is not intended, look for dropout or noise that ignores self.training."
