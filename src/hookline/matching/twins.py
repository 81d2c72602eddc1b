"""Twins: modules of two models with nearly equal weights, found by a few elements of each weight."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from hookline.matching.fingerprint import positions
from hookline.matching.side import Side, by_values
from hookline.matching.tensors import dense, plain
from hookline.model.offload import with_data

ELEMENTS = 32  # elements of each weight that are compared
NEAR = 0.5  # largest distance of twins, as a share of the norm; unrelated weights are about 1.4 apart
MOST = 2**22  # distances that are computed at once


@dataclass(frozen=True, slots=True)
class Print:
    """The shapes of a module's weights, and some elements of each, to recognize it by."""

    shapes: tuple[Any, ...]
    elements: Tensor


def twins(
    ours: Side, theirs: Side, paths: Iterable[str], others: Iterable[str], *, below: bool = False
) -> dict[str, str]:
    """Match modules of the two sides by weights: partners are nearest to each other, and no third is nearly as near.

    Modules of one class are compared first. With below=True the weights of modules in them count too. Without models
    the partners are modules with unique equal output values.
    """
    paths, others = [*paths], [*others]
    if not (ours.modules and theirs.modules):
        tokens = [
            [by_values(side.calls[path]) if path in side.calls else None for path in own]
            for side, own in ((ours, paths), (theirs, others))
        ]
        return {paths[one]: others[other] for one, other in alone(*tokens)}
    prints_a, prints_b = _prints(ours, paths, below=below), _prints(theirs, others, below=below)
    found = nearest(_with_class(prints_a, ours), _with_class(prints_b, theirs))
    taken = set(found.values())
    left_a = {path: each for path, each in prints_a.items() if path not in found}
    left_b = {path: each for path, each in prints_b.items() if path not in taken}
    return found | nearest(left_a, left_b)


def alone(ours: list[Any], theirs: list[Any]) -> Iterator[tuple[int, int]]:
    """The places of tokens that occur exactly once in each of two lists; None does not count."""
    once = [{token for token, count in Counter(tokens).items() if count == 1} - {None} for tokens in (ours, theirs)]
    places = {token: place for place, token in enumerate(theirs)}
    yield from ((place, places[token]) for place, token in enumerate(ours) if token in once[0] & once[1])


def weight_print(module: Module, *, below: bool = False) -> Print | None:
    """The print of a module's own weights, or with below=True of all weights in it; None without any to read.

    A matrix has the same print as its transpose: a Conv1D of GPT-2 holds the transposed weight of a Linear.
    """
    held = [
        tensor.detach()
        for _, tensor in with_data(module, recurse=below)
        if tensor.is_floating_point() and not is_lazy(tensor)
    ]
    with torch.no_grad():
        rows = [_sampled(tensor) for tensor in held]
    known = [row.to(torch.float64) for row in rows if row is not None]
    if not known:
        return None
    shapes = tuple(tuple(sorted(each.shape)) if each.dim() == 2 else tuple(each.shape) for each in held)
    return Print(shapes, torch.cat([row.to(known[0].device) for row in known]).cpu())


def _sampled(tensor: Tensor) -> Tensor | None:
    if tensor.is_meta or tensor.is_nested or tensor.is_quantized or tensor.layout != torch.strided:
        return None
    readable = dense(tensor)
    if readable is None:
        return None
    tensor = readable
    if tensor.dim() == 2:
        rows, columns = tensor.shape
        tensor = tensor.diagonal() if rows == columns else tensor.t() if rows < columns else tensor
    places = positions(tensor.numel(), tensor.device)
    places = places[:: max(1, len(places) // ELEMENTS)]
    return plain(tensor[torch.unravel_index(places, tensor.shape)] if tensor.dim() else tensor)


def nearest(ours: Mapping[str, Print], theirs: Mapping[str, Print]) -> dict[str, str]:
    """The pairs of prints that are nearest to each other, with no third nearly as near."""
    buckets: dict[Hashable, tuple[list[str], list[str]]] = {}
    for place, prints in enumerate((ours, theirs)):
        for path, each in prints.items():
            buckets.setdefault((each.shapes, len(each.elements)), ([], []))[place].append(path)
    found: dict[str, str] = {}
    for own, others in buckets.values():
        if own and others:
            one, other = (
                torch.stack([prints[path].elements for path in some])
                for prints, some in ((ours, own), (theirs, others))
            )
            found |= {own[row]: others[column] for row, column in _near(one, other)}
    return found


def _near(one: Tensor, other: Tensor) -> Iterator[tuple[int, int]]:
    """The rows of two tables that are nearest to each other; in very large tables only equal rows."""
    if len(one) * len(other) > MOST:
        yield from alone([tuple(row) for row in one.tolist()], [tuple(row) for row in other.tolist()])
        return
    largest = torch.maximum(one.norm(dim=1)[:, None], other.norm(dim=1)).clamp(min=1e-30)
    apart = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist") / largest
    columns, rows = apart.argmin(dim=1).tolist(), apart.argmin(dim=0).tolist()
    second_a, second_b = _second(apart), _second(apart.t())
    for row, column in enumerate(columns):
        distance = float(apart[row, column])
        if rows[column] == row and distance < min(NEAR, second_a[row] / 2, second_b[column] / 2):
            yield row, column


def _second(apart: Tensor) -> list[float]:
    """The second smallest distance in each row; infinite with one column."""
    if apart.shape[1] == 1:
        return [float("inf")] * len(apart)
    found: list[float] = apart.topk(2, dim=1, largest=False).values[:, 1].tolist()
    return found


def _prints(side: Side, paths: Iterable[str], *, below: bool) -> dict[str, Print]:
    modules = {path: side.modules[path] for path in paths if path in side.modules}
    found = {path: weight_print(module, below=below) for path, module in modules.items()}
    return {path: each for path, each in found.items() if each is not None}


def _with_class(prints: Mapping[str, Print], side: Side) -> dict[str, Print]:
    return {path: replace(each, shapes=(side.classes.get(path), *each.shapes)) for path, each in prints.items()}
