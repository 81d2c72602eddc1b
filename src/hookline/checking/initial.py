"""Rules on what a model is before it is trained: what it does not know of, and weights without any variety."""

from collections.abc import Iterator

from torch import nn
from torch.nn import Module

from hookline.checking.evidence import Evidence
from hookline.checking.finding import Finding, Severity, rule
from hookline.torch_private import Convolution

LAYERS = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.Embedding, nn.MultiheadAttention, Convolution)


@rule(
    "unregistered",
    advice="Hold layers in nn.ModuleList or nn.ModuleDict, parameters in nn.ParameterList or nn.ParameterDict: what "
    "stands in a plain list or dict is not moved, saved or trained with the model.",
)
def unregistered_parameters(evidence: Evidence) -> Iterator[Finding]:
    """Layers or parameters in a plain list, dict or other container: a warning where they got gradients, or nothing
    did; a note where they got none though others did, as a teacher that is kept out on purpose."""
    groups: dict[tuple[str, str, Severity], list[tuple[str, int]]] = {}
    for each, gradients in evidence.hidden or ():
        asking = sum(tensor.numel() for tensor in each.parameters if tensor.requires_grad)
        severity: Severity = "warning" if asking and (gradients or not evidence.backward_ran) else "note"
        attribute = each.name.partition("[")[0].partition("{")[0].partition(".")[0]
        groups.setdefault((each.path, attribute, severity), []).append((each.name, asking))
    for (path, attribute, severity), found in groups.items():
        count = sum(asking for _, asking in found)
        names = [name for name, _ in found]
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        message = f"its attribute {attribute} holds what the model does not know of: {shown}"
        message += f", {count:,} trainable values" if count else ""
        yield Finding(path, message, evidence={"names": names, "trainable": count}, severity=severity)


@rule(
    "alike-rows",
    advice="Initialize weights at random (nn.init.kaiming_uniform_, xavier_uniform_, orthogonal_): units that start "
    "alike get alike gradients as far as they see alike things, and stay alike.",
)
def alike_rows(evidence: Evidence) -> Iterator[Finding]:
    """A weight of a layer whose rows are all equal before anything ran, or of which each row is one number; all zeros
    are left out."""
    for name, facts in (evidence.parameters or {}).items():
        module = evidence.module(facts.path)
        if not facts.alike or not facts.norm or not facts.parameter.requires_grad or not _mixes(module):
            continue
        said = "all rows are equal" if facts.alike == "equal" else "each row is one number"
        message = f"in its {name.rpartition('.')[2]} {said} before anything ran"
        yield Finding(facts.path, message, evidence={"parameter": name, "shape": list(facts.parameter.shape)})


def _mixes(module: Module | None) -> bool:
    """Whether each row of a module's weight takes all of its input: not a convolution of each channel by itself."""
    return isinstance(module, LAYERS) and (not isinstance(module, Convolution) or module.groups == 1)
