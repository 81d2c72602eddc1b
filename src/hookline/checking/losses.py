"""The rule on losses that take logits but receive probabilities."""

from collections.abc import Iterator

from hookline.checking.evidence import Evidence
from hookline.checking.finding import Finding, rule


@rule(
    "loss-of-probabilities",
    advice="Pass the scores before the softmax or sigmoid to cross_entropy and binary_cross_entropy_with_logits; "
    "nll_loss takes log_softmax.",
)
def loss_of_probabilities(evidence: Evidence) -> Iterator[Finding]:
    """A softmax or sigmoid before a loss that applies its own (cross_entropy, binary_cross_entropy_with_logits), or
    before nll_loss, which takes log-probabilities. Read from the graph of the loss, or within a block from the gradient
    of the output."""
    told: set[str] = set()
    for each in evidence.scored or ():
        if each.path not in told:
            told.add(each.path)
            message = f"its output comes from a {each.made_by.lower()}, and the loss applies {each.taken_by} to it"
            yield Finding(each.path, message, evidence={"made_by": each.made_by, "taken_by": each.taken_by})
