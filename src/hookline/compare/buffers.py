"""Keep and compare the buffers that a forward updates, such as the running statistics of a BatchNorm."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch import Tensor
from torch.nn import Parameter

from hookline.compare.difference import Pair
from hookline.compare.recorded import compare_infos
from hookline.compare.tolerances import Allowed
from hookline.matching.tensors import Difference
from hookline.model.restored import Held
from hookline.record.keep import Leaf
from hookline.record.record import TensorInfo

Name: TypeAlias = tuple[str, str]  # the path of the module, and the buffer's own


@dataclass(frozen=True, slots=True)
class Buffers:
    """The buffers of a model before a call, and what is known of those that the call updated."""

    before: dict[Name, Tensor]
    updated: dict[Name, TensorInfo]

    def info(self, name: Name, keep: Leaf) -> TensorInfo | None:
        """What is known of a buffer after the call; None if there is none of that name."""
        if name in self.updated:
            return self.updated[name]
        return keep(self.before[name]) if name in self.before else None


def buffers_of(held: Iterable[Held], keep: Leaf) -> Buffers:
    """The buffers among what a forward may have changed, right after it."""
    buffers = [each for each in held if not isinstance(each.tensor, Parameter)]
    updated = {(each.path, each.name): each.now for each in buffers if each.changed}
    return Buffers(
        before={(each.path, each.name): each.tensor for each in buffers},
        updated={name: keep(tensor) for name, tensor in updated.items() if tensor is not None},
    )


def with_buffers(
    pairs: list[Pair], ours: Buffers, theirs: Buffers, partners: Mapping[str, str], keep: Leaf, allowed: Allowed
) -> list[Pair]:
    """The pairs with the differences of the buffers that either model updated, at the last call of their module or of
    the nearest called module around it. A buffer that only one model has is left out."""
    last = {pair.path_a: pair.number for pair in pairs}
    back = {partner: path for path, partner in partners.items()}
    names = [*ours.updated, *((back[path], name) for path, name in theirs.updated if path in back)]
    found: dict[int, dict[str, Difference]] = {}
    for path, name in dict.fromkeys(names):
        holder = _nearest(path, last)
        one, other = ours.info((path, name), keep), theirs.info((partners.get(path, ""), name), keep)
        if holder is None or path not in partners or one is None or other is None:
            continue
        key = f"{path}.{name}".removeprefix(f"{holder}.").lstrip(".")
        found.setdefault(last[holder], {})[key] = compare_infos(one, other, allowed=allowed(path))
    return [replace(pair, buffers=found.get(pair.number, {})) for pair in pairs]


def _nearest(path: str, called: Mapping[str, int]) -> str | None:
    """The path of a module, or of the nearest around it that was called."""
    while path and path not in called:
        path = path.rpartition(".")[0]
    return path if path in called else None
