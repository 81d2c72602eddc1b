"""Compare the parameters and buffers of two models: which differ, by how much, and how they are related."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import is_lazy

from hookline.compare.difference import Weight
from hookline.compare.recorded import missing
from hookline.matching.tensors import EXACT, Tolerance, compare, dense, plain
from hookline.messages import few
from hookline.model.offload import Elsewhere, held_elsewhere, read_elsewhere
from hookline.model.paths import walk

MANY = 2**22  # elements beyond which their order is not compared


def partner_modules(model: Module, partners: Mapping[str, str]) -> dict[str, str]:
    """Which modules' weights are compared: those of matched calls, and uncalled ones below partners."""
    taken, found = set(partners.values()), dict(partners)
    for path, _ in walk(model):  # parents first
        above, _, name = path.rpartition(".")
        partner = f"{found.get(above, above)}.{name}".lstrip(".")
        if path not in found and partner not in taken:
            found[path] = partner
    return found


def differing_weights(a: Mapping[str, Module], b: Mapping[str, Module], partners: Mapping[str, str]) -> list[Weight]:
    """Each parameter and buffer that differs in two matched modules: in any element, or, if their dtypes differ, by
    more than these explain."""
    found: list[Weight] = []
    elsewhere = {id(model): held_elsewhere(model) for model in (a.get(""), b.get("")) if model is not None}
    for path, partner in partners.items():
        if path not in a or partner not in b:
            continue
        for kind in ("parameter", "buffer"):
            ours, theirs = _own(a[path], kind), _own(b[partner], kind)
            for name in {**ours, **theirs}:
                one = _read(elsewhere, a, path, name, ours.get(name))
                other = _read(elsewhere, b, partner, name, theirs.get(name))
                found += _compared(kind, (path, partner), name, one, other)
    return found


def _read(
    elsewhere: Mapping[int, Elsewhere], modules: Mapping[str, Module], path: str, name: str, tensor: Tensor | None
) -> Tensor | None:
    """The tensor, or its value from where accelerate offloads it, if it is loaded only for a call."""
    if tensor is None or not tensor.is_meta or "" not in modules:
        return tensor
    value = read_elsewhere(elsewhere[id(modules[""])], modules[path], name)
    return tensor if value is None else value


def held_otherwise(a: Mapping[str, Module], b: Mapping[str, Module], partners: Mapping[str, str]) -> Iterator[str]:
    """What gradients depend on besides the values of the weights, where two models differ in it: which parameters
    require a gradient, and which are one parameter."""
    both: dict[str, tuple[Tensor, Tensor]] = {}
    for path, partner in partners.items():
        if path in a and partner in b:
            ours, theirs = _own(a[path], "parameter"), _own(b[partner], "parameter")
            both |= {f"{path}.{name}".lstrip("."): (ours[name], theirs[name]) for name in ours if name in theirs}
    real = {name: pair for name, pair in both.items() if not (pair[0].is_meta or pair[1].is_meta)}
    for place, which in enumerate(("first", "second")):
        names = [name for name, pair in both.items() if pair[place].requires_grad and not pair[1 - place].requires_grad]
        if names:
            yield f"a gradient is required in the {which} only: {few(names)}"
        shared: dict[int, str] = {}
        for name, pair in real.items():  # what accelerate loads for a call is another parameter each time
            known = shared.setdefault(id(pair[place]), name)
            if both[known][1 - place] is not pair[1 - place]:
                yield f"{known} and {name} are one parameter in the {which} only"


def _own(module: Module, kind: str) -> dict[str, Tensor]:
    named = module.named_parameters if kind == "parameter" else module.named_buffers
    return {name: tensor for name, tensor in named(recurse=False) if not is_lazy(tensor)}


def _compared(
    kind: str, paths: tuple[str, str], name: str, one: Tensor | None, other: Tensor | None
) -> Iterator[Weight]:
    names = [
        None if tensor is None else f"{path}.{name}".lstrip(".")
        for path, tensor in zip(paths, (one, other), strict=True)
    ]
    if one is None or other is None:
        yield Weight(names[0], names[1], kind, missing(one, other))
        return
    if one is other:
        return
    one, other = dense(one), dense(other)
    if one is None or other is None:
        return  # a subclass whose values are not known
    allowed = rounding(one.dtype, other.dtype)
    turned = one.dim() == 2 and one.shape != other.shape and one.shape == other.shape[::-1]
    if turned and not compare(one.t(), other, allowed=allowed).differs:
        return  # stored transposed, as a Conv1D of GPT-2 stores the weight of a Linear
    difference = compare(one, other, allowed=allowed)
    if difference.differs:
        yield Weight(names[0], names[1], kind, difference, relation(one, other))


def rounding(one: torch.dtype, other: torch.dtype) -> Tolerance | None:
    """The tolerance of weights in these dtypes: exact in one dtype, else one unit in the last place of the coarser;
    None, which means that of the dtypes, if one of them is not a float."""
    if one == other:
        return EXACT
    if not (one.is_floating_point and other.is_floating_point):
        return None
    coarser = torch.finfo(coarser_of(one, other))
    return coarser.eps, coarser.smallest_normal * coarser.eps


def coarser_of(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """The less precise of two floating dtypes."""
    return max(one, other, key=lambda dtype: torch.finfo(dtype).eps)


def relation(a: Tensor, b: Tensor) -> str:
    """How `b` is related to `a`: transposed, negated, a multiple, the same numbers in another order, or the same but
    for a few elements; "" if in none of these ways.

    >>> a = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> relation(a, a.t()), relation(a, a.flip(0)), relation(a, 3 * a)
    ('transposed', 'the same numbers in another order', '3 times as large')
    """
    if a.is_meta or b.is_meta or a.shape != b.shape or not (a.is_floating_point() and b.is_floating_point()):
        return ""
    with torch.no_grad():
        b = b.to(a.device)
        if a.dtype != b.dtype:
            coarser = coarser_of(a.dtype, b.dtype)
            eps = torch.finfo(coarser).eps
            a, b = a.to(coarser), b.to(coarser)
            turned = "transposed" if a.dim() == 2 and _equal(a.t(), b) else "negated" if _equal(-a, b) else ""
            return turned or _multiple(a.float(), b.float(), within=2 * eps)
        if a.dim() == 2 and _equal(a.t(), b):
            return "transposed"
        if _equal(-a, b):
            return "negated"
        return _multiple(a, b) or _reordered(a, b) or _few(a, b)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b.to(a.device))


def _multiple(a: Tensor, b: Tensor, within: float = 1e-4) -> str:
    length = float((a * a).sum())
    factor = float((a * b).sum()) / length if length and a.numel() > 1 else 0.0
    if not factor or not math.isfinite(factor) or abs(factor - 1) <= max(1e-3, within):
        return ""
    near = torch.allclose(a * factor, b, rtol=within, atol=1e-6 * float(b.abs().max()))
    return f"{factor:.4g} times as large" if near else ""


def _reordered(a: Tensor, b: Tensor) -> str:
    one, other = plain(a), plain(b)
    if one is None or other is None or not 1 < one.numel() <= MANY:
        return ""
    return "the same numbers in another order" if _equal(one.sort().values, other.sort().values) else ""


def _few(a: Tensor, b: Tensor) -> str:
    changed = int((a != b).sum())
    return f"{changed:,} of {a.numel():,} elements" if changed * 2 <= a.numel() else ""
