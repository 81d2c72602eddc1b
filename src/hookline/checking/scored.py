"""Find probabilities that reach a loss that takes scores, by the graph of the loss or by the gradient."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hookline.checking.evidence import Scored
from hookline.checking.links import MOST_NODES, PASSING, operation
from hookline.engine.tensor_hooks import on_gradient
from hookline.model.tensors import tensors

MAKERS = frozenset(("Softmax", "Sigmoid"))
TAKERS = {
    "LogSoftmax": "a softmax",
    "BinaryCrossEntropyWithLogits": "a sigmoid",
    "NllLoss": "no logarithm",
    "NllLossNd": "no logarithm",
    "NllLoss2D": "no logarithm",
}
FEWEST = 8  # fewest elements whose gradients must agree
CLOSE = 0.02  # largest relative difference of gradients from those of the loss
MOST = 2**24  # most elements that are kept until the backward pass


def maker(tensor: Tensor) -> str | None:
    """ "Softmax" or "Sigmoid" if a tensor is the result of that, reshaped at most; None for any other."""
    node = _through_moves(tensor.grad_fn)
    return operation(node) if node is not None and operation(node) in MAKERS else None


def _through_moves(node: Any) -> Any:
    while node is not None and operation(node) in PASSING - {"Add", "Sub", "Sum", "Relu", "Neg", "Threshold"}:
        node = node.next_functions[0][0]
    return node


def scored_in_graph(loss: Tensor, output: Any, path: str) -> Scored | None:
    """Probabilities that a loss takes for logits, found in its graph after the model's output."""
    stops = {tensor.grad_fn for _, tensor in tensors(output) if tensor.grad_fn is not None}
    left: list[Any] = [loss.grad_fn]
    seen: set[Any] = set()
    while left and len(seen) < MOST_NODES:
        node = left.pop()
        if node is None or node in seen or (node in stops and node is not loss.grad_fn):
            continue
        seen.add(node)
        made = _through_moves(node.next_functions[0][0]) if operation(node) in TAKERS else None
        if made is not None and operation(made) in MAKERS:
            return Scored(path, operation(made), TAKERS[operation(node)])
        left += [edge[0] for edge in node.next_functions]
    return None


@dataclass(slots=True)
class Scores:
    """The outputs that are probabilities, and whether the gradient of each is that of a loss that takes logits."""

    found: list[tuple[str, str, str, Tensor]] = field(default_factory=list)

    def watch(self, path: str, output: Iterable[Tensor]) -> None:
        """Hook the gradient of the tensors that are probabilities."""
        for tensor in output:
            made = maker(tensor) if tensor.grad_fn is not None and tensor.numel() < MOST else None
            if made is not None:
                on_gradient(tensor, partial(self._see, path, made, tensor.detach()))

    def _see(self, path: str, made: str, values: Tensor, gradient: Tensor | None) -> None:
        if gradient is None or gradient.shape != values.shape:
            return
        with torch.no_grad():
            p, g = values.float(), gradient.detach().float()
            if made == "Sigmoid":
                self.found.append((path, made, TAKERS["BinaryCrossEntropyWithLogits"], _is_of_binary(p, g)))
            for dim in dict.fromkeys((1, p.dim() - 1)) if p.dim() > 1 else ():
                self.found.append((path, made, TAKERS["LogSoftmax"], _is_of_classes(p, g, dim)))

    def facts(self) -> tuple[Scored, ...]:
        """The outputs whose gradient was that of such a loss."""
        return tuple(dict.fromkeys(Scored(path, made, taken) for path, made, taken, sure in self.found if bool(sure)))


def _is_of_classes(p: Tensor, g: Tensor, dim: int) -> Tensor:
    """Whether a gradient is (softmax(p) - one_hot) times one number for all rows: the gradient of a cross entropy."""
    p, g = p.movedim(dim, -1).flatten(0, -2), g.movedim(dim, -1).flatten(0, -2)
    used = (g != 0).any(dim=-1)
    factors = g / p.softmax(dim=-1)
    wanted = g >= 0
    one = wanted.logical_not().sum(dim=-1) == 1
    balanced = g.sum(dim=-1).abs() <= CLOSE * g.abs().sum(dim=-1)
    rows = (one & balanced) | used.logical_not()
    others = used[:, None] & wanted
    return rows.all() & (used.sum() * (p.shape[-1] - 1) >= FEWEST) & _agree(factors, others)


def _is_of_binary(p: Tensor, g: Tensor) -> Tensor:
    """Whether a gradient is (sigmoid(p) - label) times one number: the gradient of a binary cross entropy with
    logits."""
    factors = torch.where(g >= 0, g / p.sigmoid(), g / (p.sigmoid() - 1))
    return (g != 0).all() & torch.tensor(g.numel() >= FEWEST, device=g.device) & _agree(factors, g == g)


def _agree(values: Tensor, among: Tensor) -> Tensor:
    low = torch.where(among, values, torch.inf).amin()
    high = torch.where(among, values, -torch.inf).amax()
    return (low > 0) & (high - low <= CLOSE * high)
