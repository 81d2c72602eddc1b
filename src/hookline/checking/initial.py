"""Rules on a model before training: unregistered modules and parameters, and weights whose rows are alike."""

from collections.abc import Iterator

from torch import nn
from torch.nn import Module

from hookline.checking.evidence import Evidence
from hookline.checking.finding import Finding, Severity, rule
from hookline.torch_private import Convolution

LAYERS = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.Embedding, nn.MultiheadAttention, Convolution)


@rule(
    "unregistered",
    advice="Keep layers in nn.ModuleList or nn.ModuleDict, parameters in nn.ParameterList or nn.ParameterDict. The "
    "contents of a plain list or dict are not moved, saved or trained with the model.",
)
def unregistered_parameters(evidence: Evidence) -> Iterator[Finding]:
    """Layers or parameters in a plain list, dict or other container. A warning where they got gradients, or no
    parameter did. A note where only others did, since a teacher may be kept out on purpose."""
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
        message = f"its attribute {attribute} holds modules or parameters that are not registered: {shown}"
        message += f", {count:,} trainable values" if count else ""
        yield Finding(path, message, evidence={"names": names, "trainable": count}, severity=severity)


@rule(
    "alike-rows",
    advice="Initialize weights at random (nn.init.kaiming_uniform_, xavier_uniform_, orthogonal_). Units that start "
    "equal and see equal inputs get equal gradients, and stay equal.",
)
def alike_rows(evidence: Evidence) -> Iterator[Finding]:
    """A weight of a layer that has all rows equal, or each row filled with one number, before the first call. Weights
    of all zeros are left out."""
    for name, facts in (evidence.parameters or {}).items():
        module = evidence.module(facts.path)
        if not facts.alike or not facts.norm or not facts.parameter.requires_grad or not _mixes(module):
            continue
        which = "all rows are equal" if facts.alike == "equal" else "each row is one number"
        message = f"in its {name.rpartition('.')[2]} {which} before the first call"
        yield Finding(facts.path, message, evidence={"parameter": name, "shape": list(facts.parameter.shape)})


def _mixes(module: Module | None) -> bool:
    """Whether each row of a module's weight reads all of its input, which a grouped convolution does not."""
    return isinstance(module, LAYERS) and (not isinstance(module, Convolution) or module.groups == 1)
