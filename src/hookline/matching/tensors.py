"""Compare two tensors: by how much they differ, and whether that exceeds the tolerance of their dtypes."""

import cmath
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Parameter

from hookline.matching.layout import same_layout
from hookline.messages import dtype_name
from hookline.model.sharded import is_distributed, local_part
from hookline.torch_private import FakeTensor

Tolerance: TypeAlias = tuple[float, float]
"""The relative and the absolute tolerance."""
Basis: TypeAlias = Literal["elements", "samples", "statistics", "shape"]

CHUNK = 2**20  # elements that are compared at once, so that the memory used does not grow with the tensors
EXACT: Tolerance = (0.0, 0.0)
TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float32: (1.3e-6, 1e-5),
    torch.float64: (1e-7, 1e-7),
    torch.complex32: (1e-3, 1e-5),
    torch.complex64: (1.3e-6, 1e-5),
    torch.complex128: (1e-7, 1e-7),
}
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
WHOLE = {*BITS.values(), torch.uint8}
KINDS = ("is_floating_point", "is_complex")


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of a tensor b from a reference a.

    Figures are over the elements that are finite in both tensors, and NaN if there are none.

    - `differs`: whether the difference exceeds the tolerance;
    - `identical`: whether no element differs at all;
    - `absolute`: the largest |b - a|;
    - `relative`: the largest |b - a| / |a| where a is not 0;
    - `error`: the norm of b - a over the norm of a;
    - `cosine`: the cosine similarity of the two;
    - `snr`: the signal-to-noise ratio in dB;
    - `ulps`: the largest difference in units in the last place of the less precise dtype;
    - `nan`: the number of elements that are NaN or infinite in only one of them, or infinite with opposite signs;
    - `beyond`: the number of elements beyond the tolerance;
    - `count`: the number of compared elements;
    - `tolerance`: the relative and the absolute tolerance;
    - `shapes`, `dtypes`: those of both, None for a missing tensor;
    - `text`: for two numbers, texts, booleans or Nones instead of tensors, both of them as text;
    - `basis`: what the figures are computed from: "elements", "samples", "statistics", or "shape" if nothing else was
      kept.
    """

    shapes: tuple[tuple[int, ...] | None, tuple[int, ...] | None]
    dtypes: tuple[str | None, str | None]
    differs: bool
    identical: bool
    basis: Basis = "elements"
    absolute: float = math.nan
    relative: float = math.nan
    error: float = math.nan
    cosine: float = math.nan
    snr: float = math.nan
    ulps: float = math.nan
    nan: int = 0
    beyond: int = 0
    count: int = 0
    tolerance: Tolerance = EXACT
    text: str = ""

    @property
    def other_shape(self) -> bool:
        """Whether the shapes rule out a comparison: they differ in more than leading axes of 1 or a flattened batch."""
        one, other = self.shapes
        return one is not None and other is not None and one != other and not same_layout(one, other)

    @property
    def regrouped(self) -> bool:
        """Whether the elements were compared although the shapes differ, as with a flattened batch."""
        one, other = self.shapes
        return one is not None and other is not None and one != other and same_layout(one, other)

    @property
    def folded(self) -> bool:
        """Whether elements are beyond the tolerance but do not count, since rounding explains them."""
        return not self.differs and self.beyond > 0

    def __str__(self) -> str:
        one, other = self.shapes
        if self.text:
            return self.text
        if one is None or other is None:
            return f"only the {'second' if one is None else 'first'} has it"
        if self.other_shape:
            return f"shape {shape_text(one)} vs {shape_text(other)}"
        if kind_of(self.dtypes[0]) != kind_of(self.dtypes[1]):
            return f"dtype {self.dtypes[0]} vs {self.dtypes[1]}"
        if self.nan:
            return f"{self.nan:,} elements are NaN or infinite in only one of them, or infinite with opposite signs"
        if math.isnan(self.absolute) and not self.differs and not self.identical:
            return "nothing to compare"
        return "the same" if self.identical else f"by up to {self.absolute:.3g}, {self.error:.2g} of the norm"


def tolerance(*dtypes: torch.dtype) -> Tolerance:
    """The (relative, absolute) tolerance for tensors of these dtypes, as in `torch.testing`: the largest of each; zero
    for integers.

    >>> tolerance(torch.float32, torch.bfloat16)
    (0.016, 1e-05)
    """
    known = [TOLERANCES.get(dtype, _of_small(dtype)) for dtype in dtypes]
    return max(relative for relative, _ in known), max(absolute for _, absolute in known)


def _of_small(dtype: torch.dtype) -> Tolerance:
    """The tolerance of 8-bit floats, which torch.testing compares exactly: the distance of two neighbours."""
    return (torch.finfo(dtype).eps, 1e-5) if dtype.is_floating_point else EXACT


def compare(a: Tensor, b: Tensor, *, allowed: Tolerance | None = None) -> Difference:
    """The difference of `b` from the reference `a`, by default with the tolerance of their dtypes.

    Shapes that differ are a difference, except for leading axes of 1 and a flattened batch (see `same_layout`), whose
    values are compared. Dtypes of different kinds, such as integers and floats, are a difference; float32 and bfloat16
    alone are not. NaN equals NaN, and Inf equals the same Inf; these elements do not enter the figures. Tensors without
    elements have no figures.

    >>> found = compare(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5]))
    >>> found.differs, found.absolute, found.relative, found.beyond
    (True, 0.5, 0.25, 1)
    """
    allowed = allowed if allowed is not None else tolerance(a.dtype, b.dtype)
    told: dict[str, Any] = {
        "shapes": (shape_of(a), shape_of(b)),
        "dtypes": (dtype_name(a.dtype), dtype_name(b.dtype)),
    }
    if a.is_nested != b.is_nested or not same_layout(*told["shapes"]) or not alike(a.dtype, b.dtype):
        return Difference(**told, differs=True, identical=False, tolerance=allowed)
    one, other = plain(a), plain(b)
    if one is None or other is None or one.numel() != other.numel():
        differs = (one is None) == (other is None) and one is not None
        return Difference(**told, differs=differs, identical=False, basis="shape", tolerance=allowed)
    other = other.to(one.device)
    if one.dtype == other.dtype != torch.complex32 and torch.equal(one, other):  # complex32 has no torch.equal
        found = SAME if _some_finite(one) else EQUAL
        return Difference(**told, **found, count=one.numel(), tolerance=allowed)
    return Difference(**told, **figures(one, other, allowed), tolerance=allowed)


EQUAL: dict[str, Any] = {"differs": False, "identical": True}
SAME: dict[str, Any] = {
    **EQUAL,
    **{"absolute": 0.0, "relative": 0.0, "error": 0.0, "cosine": 1.0, "snr": math.inf, "ulps": 0.0},
}


def alike(one: torch.dtype, other: torch.dtype) -> bool:
    """Whether two dtypes are of one kind: floats, complex numbers, booleans, or whole numbers."""
    kinds = ((one == torch.bool) == (other == torch.bool), *(getattr(one, k) == getattr(other, k) for k in KINDS))
    return all(kinds)


def kind_of(name: str | None) -> str:
    """The kind of a dtype, by its name."""
    dtype = getattr(torch, name or "", None)
    if not isinstance(dtype, torch.dtype) or dtype == torch.bool:
        return name or ""
    return "float" if dtype.is_floating_point else "complex" if dtype.is_complex else "int"


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape; for a strided nested tensor only the number of its parts."""
    if tensor.is_nested and tensor.layout == torch.strided:
        return (tensor.size(0),)
    return tuple(size if isinstance(size, int) else -1 for size in tensor.shape)


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as text: 2x3."""
    return "x".join(map(str, shape)) or "scalar"


def plain(tensor: Tensor) -> Tensor | None:
    """The elements as one dense, detached row; of a distributed tensor those in this process. None without any to
    read."""
    tensor = local_part(tensor).detach()
    if tensor.is_meta or isinstance(tensor, FakeTensor):
        return None
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.is_nested:
        return torch.cat([part.reshape(-1) for part in tensor.unbind()])
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    readable = dense(tensor)
    return None if readable is None else readable.resolve_conj().resolve_neg().reshape(-1)


def dense(tensor: Tensor) -> Tensor | None:
    """The tensor, or the dequantized values of a subclass with few operations, such as a quantized weight; None if it
    has neither."""
    if type(tensor) in (Tensor, Parameter) or tensor.is_meta or is_distributed(tensor):
        return tensor
    with torch.no_grad():
        try:
            tensor.detach().resolve_conj().resolve_neg().reshape(-1)
            return tensor
        except Exception:  # a subclass may raise anything for an unknown operation
            pass
        try:
            numbers: Tensor = tensor.detach().dequantize()
            return numbers if type(numbers) is Tensor and numbers.shape == tensor.shape else None
        except Exception:
            return None


def figures(a: Tensor, b: Tensor, allowed: Tolerance) -> dict[str, Any]:
    """The figures of a Difference for two rows of equal length, computed chunk by chunk."""
    if a.numel() == 0:
        return {**EQUAL, "identical": a.dtype == b.dtype}
    counts, largest, sums = zip(*(_of_part(*parts, allowed) for parts in _parts(a, b)), strict=True)
    unequal, nan, beyond, finite = torch.stack(counts).sum(dim=0).tolist()
    found = {"differs": beyond > 0, "identical": unequal == 0 and a.dtype == b.dtype, "nan": nan, "beyond": beyond}
    if not finite:
        return {**found, "count": a.numel()}
    absolute, relative, ulps = torch.stack(largest).amax(dim=0).tolist()
    aa, bb, ab, dd = torch.stack(sums).sum(dim=0).tolist()
    lengths = math.sqrt(aa) * math.sqrt(bb)
    return {
        **found,
        **{"absolute": absolute, "relative": relative, "count": a.numel()},
        "ulps": ulps if ulps >= 0 else math.nan,
        "error": ratio(math.sqrt(dd), math.sqrt(aa)),
        "cosine": max(-1.0, min(1.0, ab / lengths)) if lengths else (1.0 if aa == bb else 0.0),
        "snr": math.inf if dd == 0 else -math.inf if aa == 0 else 10 * (math.log10(aa) - math.log10(dd)),
    }


def ratio(part: float, whole: float) -> float:
    """One norm over another; 0 if both are 0, infinite if only the second is."""
    if part == 0:
        return 0.0
    return part / whole if whole else math.inf


def apart(one: float, other: float, bound: float) -> bool:
    """Whether two figures are further apart than the bound; if one is not finite, whether they are unequal.

    >>> apart(math.inf, -math.inf, 1.0), apart(math.nan, math.nan, 1.0)
    (True, False)
    """
    if math.isfinite(one) and math.isfinite(other):
        return abs(one - other) > bound
    return one != other and not (math.isnan(one) and math.isnan(other))


def largest_finite(*values: float) -> float:
    """The largest finite magnitude; 0 if there is none."""
    return max((abs(value) for value in values if math.isfinite(value)), default=0.0)


def _some_finite(values: Tensor) -> bool:
    """Whether any element of a row is finite. Usually the first is, and the others are not read."""
    if values.numel() and cmath.isfinite(values[0].item()):
        return True
    return any(bool(_wide(part).isfinite().any()) for part, _ in _parts(values, values))


def _wide(values: Tensor) -> Tensor:
    """The elements in the dtype in which figures are computed."""
    real = torch.float32 if values.device.type == "mps" else torch.float64
    return values.to(torch.complex128 if values.is_complex() else real)


def _parts(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, a.numel(), CHUNK):
        yield a[start : start + CHUNK], b[start : start + CHUNK]


def _of_part(a: Tensor, b: Tensor, allowed: Tolerance) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, largest errors and sums of one chunk; errors and sums are over finite elements only."""
    ulps = _ulps(a, b)
    unequal = _unequal_whole(a, b)
    a, b = _wide(a), _wide(b)
    equal = (a == b) | (a.isnan() & b.isnan()) if unequal is None else ~unequal
    finite = a.isfinite() & b.isfinite()
    a, b = a.where(finite, torch.zeros_like(a)), b.where(finite, torch.zeros_like(b))
    error, size = (b - a).abs(), a.abs()
    if unequal is not None:
        error = torch.where(unequal, error.clamp(min=1), error)  # float64 cannot tell large neighbours apart
    relative, absolute = allowed
    bad = ~equal & ~finite
    beyond = bad | (error > absolute + relative * size)
    most = [error.amax(), (error / size).where(size > 0, torch.zeros_like(size)).amax(), ulps.where(finite, 0.0).amax()]
    sums = [size.square().sum(), b.abs().square().sum(), (a.conj() * b).sum().real, error.square().sum()]
    return (
        torch.stack([(~equal).sum(), bad.sum(), beyond.sum(), finite.sum()]),
        torch.stack([figure.to(error.dtype) for figure in most]),
        torch.stack([figure.to(error.dtype) for figure in sums]),
    )


def _unequal_whole(a: Tensor, b: Tensor) -> Tensor | None:
    """Which elements of two rows of integers differ; None for other dtypes."""
    if a.dtype != b.dtype and not {a.dtype, b.dtype} <= WHOLE:
        return None
    return None if a.is_floating_point() or a.is_complex() else a != b


def _ulps(a: Tensor, b: Tensor) -> Tensor:
    """The distance of two elements in numbers of the less precise dtype; -1 if unknown."""
    dtype = _lower(a.dtype, b.dtype)
    if not dtype.is_floating_point or a.device.type == "mps":
        return torch.full(a.shape, -1.0, device=a.device)
    one, other = _place(a.to(dtype)), _place(b.to(dtype))
    apart = one.double().abs() + other.double().abs()
    return torch.where((one < 0) == (other < 0), (one - other).double().abs(), apart)


def _lower(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """The less precise dtype."""
    if not (one.is_floating_point and other.is_floating_point):
        return one
    return max(one, other, key=lambda dtype: torch.finfo(dtype).eps)


def _place(values: Tensor) -> Tensor:
    """Which number of its dtype each element is, counted from 0."""
    bits = values.contiguous().view(BITS[values.dtype.itemsize])
    magnitude = (bits & torch.iinfo(bits.dtype).max).long()
    return torch.where(bits < 0, -magnitude, magnitude)
