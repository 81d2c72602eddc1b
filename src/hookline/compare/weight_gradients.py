"""The gradients of the parameters of two models: kept after backward, and compared."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

from torch import Tensor

from hookline.compare.difference import Pair
from hookline.compare.recorded import compare_infos, missing
from hookline.compare.tolerances import Allowed
from hookline.matching.tensors import Difference, Tolerance
from hookline.model.offload import held_elsewhere
from hookline.model.select import Selection
from hookline.record.keep import Leaf
from hookline.record.record import TensorInfo

Gradients: TypeAlias = Mapping[str, TensorInfo | None]  # by the parameter's name; None of one that has no gradient


def weight_gradients(selection: Selection, keep: Leaf, lent: Mapping[str, Tensor]) -> Gradients:
    """The gradients of the parameters by name, right after backward; of those that were lent in their place, where some
    were."""
    elsewhere = held_elsewhere(selection.model)
    own = ((path, module.named_parameters(recurse=False)) for path, module in selection)
    named = (
        (full := f"{path}.{name}".lstrip("."), lent.get(full, parameter).grad)
        for path, each in own
        for name, parameter in each
        if not (parameter.is_meta and elsewhere)  # of which accelerate keeps no gradient
    )
    return {name: None if gradient is None else keep(gradient) for name, gradient in named}


def with_weight_gradients(pairs: list[Pair], ours: Gradients, theirs: Gradients, allowed: Allowed) -> list[Pair]:
    """The pairs with the differences of the gradients of their modules' own parameters among their `grad_inputs`: also
    of a parameter that has a gradient in one model only. They stand at the first call of a module."""
    found = []
    for pair in pairs:
        one, other = _own(ours, pair.path_a), _own(theirs, pair.path_b)
        shared = [name for name in one if name in other and pair.index == 0]
        each = {name: _of_gradients(one[name], other[name], allowed(pair.path_a)) for name in shared}
        extra = {name: difference for name, difference in each.items() if difference is not None}
        found.append(replace(pair, grad_inputs={**pair.grad_inputs, **extra}))
    return found


def _of_gradients(one: TensorInfo | None, other: TensorInfo | None, allowed: Tolerance | None) -> Difference | None:
    if one is None or other is None:
        return None if one is other else missing(one, other)
    return compare_infos(one, other, allowed=allowed)


def _own(gradients: Gradients, path: str) -> dict[str, TensorInfo | None]:
    split = ((name.rpartition("."), info) for name, info in gradients.items())
    return {name: info for (holder, _, name), info in split if holder == path}
