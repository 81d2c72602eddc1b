"""A tensor in a few hundred numbers, that two processes can compare: exactly by a digest, closely by samples."""

import math
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookline.matching.tensors import BITS, Difference, Tolerance, apart, figures, largest_finite, plain

Fingerprint: TypeAlias = dict[str, Any]
"""What `fingerprint` gives: a small dict of numbers and tensors, to compare with another."""

VERSION = 2
SAMPLES = 256
WORDS = 2**18  # words that are digested together
ODD = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio, as Knuth takes it to scatter numbers
WRAP = 2**64
UNREDUCED = {torch.uint16, torch.uint32, torch.uint64}  # PyTorch has few operations for these


def fingerprint(tensor: Tensor) -> Fingerprint | None:
    """What `watch(keep=hookline.fingerprint)` keeps of a tensor, at most some 2 KB for float32 of any size: a digest of
    all elements, 256 of these, the same ones of every tensor of that size (all where there are fewer), and sum, sum of
    magnitudes, norm, minimum and maximum. None of a tensor without elements to read.

    Nothing on a device waits for it. Two fingerprints of other processes, devices and versions can be compared.

    >>> one = fingerprint(torch.arange(1000.0))
    >>> one["samples"].shape, one["count"]
    (torch.Size([256]), 1000)
    >>> same_elements(one, fingerprint(torch.arange(1000.0)))
    True
    """
    values = plain(tensor)
    if values is None:
        return None
    return {
        "fingerprint": VERSION,
        "count": values.numel(),
        "digest": digest(values),
        "samples": values[positions(values.numel(), values.device)],
        "moments": _moments(values),
    }


def is_fingerprint(value: Any) -> bool:
    """Whether a kept value is one of these, whole."""
    if not isinstance(value, dict) or value.get("fingerprint") != VERSION:
        return False
    counts = type(value.get("count")) is int and 0 <= value["count"] < 2**63
    return counts and all(isinstance(value.get(name), Tensor) for name in ("digest", "samples", "moments"))


def same_elements(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether two fingerprints are of tensors whose elements are all equal; 0.0 and -0.0 are, and NaN and NaN."""
    alike = one["count"] == other["count"] and one["samples"].dtype == other["samples"].dtype
    return alike and torch.equal(one["digest"].cpu(), other["digest"].cpu())


def compare_fingerprints(one: Fingerprint, other: Fingerprint, told: dict[str, Any], allowed: Tolerance) -> Difference:
    """The difference of two tensors by their fingerprints; `told` holds their shapes and dtypes.

    The figures are of the samples. It differs where a sample does, or the moments do by more than tensors within the
    tolerance can; with no tolerance, where an element does.
    """
    a, b = one["samples"].cpu(), other["samples"].cpu()
    if same_elements(one, other):
        found = {**figures(a, a, allowed), "differs": False, "identical": True}
        return Difference(**told, **found, basis="samples", tolerance=allowed)
    found = figures(a, b, allowed)
    moments = _moments_differ(one["moments"].tolist(), other["moments"].tolist(), one["count"], allowed)
    exact = a.dtype == b.dtype and not any(allowed)
    found |= {"differs": found["differs"] or moments or exact, "identical": False}
    return Difference(**told, **found, basis="samples", tolerance=allowed)


@lru_cache(maxsize=256)
def positions(count: int, device: torch.device) -> Tensor:
    """Which elements are sampled of this many: one out of each of 256 stretches, scattered as the count says."""
    if count <= SAMPLES:
        return torch.arange(count, device=device)
    places = [place * count // SAMPLES for place in range(SAMPLES + 1)]
    scattered = ((place + 1) * (count | 1) * ODD % WRAP >> 32 for place in range(SAMPLES))
    chosen = [low + far % (high - low) for low, high, far in zip(places, places[1:], scattered, strict=False)]
    return torch.tensor(chosen).to(device, non_blocking=True)


def digest(values: Tensor) -> Tensor:
    """64 bits, as an int64 of shape [1], that change with any element of a row, and with their order. Equal elements
    count as the same: 0.0 and -0.0, and NaN of any bits.

    It is made of sums of whole numbers that wrap around, which no device and no order of adding up changes.
    """
    if values.is_floating_point() and values.element_size() == 1:
        values = values.to(torch.float16)  # eight bits do not add
    found = torch.full((1,), values.numel(), dtype=torch.int64, device=values.device)
    size = next(size for size in (8, 4, 2, 1) if values.numel() * values.element_size() % size == 0)
    step = max(1, WORDS * size // values.element_size())
    for start in range(0, values.numel(), step):
        part = _words(_in_equal_bits(values[start : start + step]), size).to(torch.int64)
        part = _folded(part, 29) * _weights(values.device)[: part.numel()]
        found = found * _signed(ODD) + _folded(part).sum()
    return found


def _in_equal_bits(values: Tensor) -> Tensor:
    """The elements, equal ones in the same bits."""
    if values.is_complex():
        return _in_equal_bits(torch.view_as_real(values).reshape(-1))
    if not values.is_floating_point():
        return values
    values = values + 0  # makes 0.0 of -0.0
    return values.nan_to_num_(nan=math.nan, posinf=math.inf, neginf=-math.inf)  # a tenth of the time of a mask


def _folded(words: Tensor, by: int = 32) -> Tensor:
    """Each word with its upper bits laid over the lower, so that what multiplying moves out at the top counts too; of
    no two words the same. Before multiplying `by` is no multiple of 8: the signs of two floats in a word would cancel
    each other, and a tensor could have the digest of its negative."""
    return words ^ ((words >> by) & ((1 << (64 - by)) - 1))


def _words(values: Tensor, size: int) -> Tensor:
    """The bits of the elements, so many bytes at a time."""
    if values.dtype == torch.bool:
        return values.view(torch.uint8)
    whole = values.contiguous()
    in_place = whole.storage_offset() * whole.element_size() % size == 0
    return (whole if in_place else whole.clone()).view(BITS[size])


@lru_cache(maxsize=8)
def _weights(device: torch.device) -> Tensor:
    """An odd number for each place, so that no change of one word is lost."""
    return ((torch.arange(1, WORDS + 1, device=device) * _signed(ODD)) ^ 0x5BF03635) | 1


def _signed(number: int) -> int:
    return number - WRAP if number >= WRAP // 2 else number


def _moments(values: Tensor) -> Tensor:
    """Sum, sum of magnitudes, norm, minimum and maximum, of the magnitudes where the elements are complex."""
    if values.numel() == 0:
        return torch.zeros(5, dtype=torch.float64)
    real = values.abs() if values.is_complex() else values
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    real = real.float() if real.dtype == torch.bool or real.element_size() == 1 else real
    real = real.to(wide) if real.dtype in UNREDUCED else real
    low, high = real.aminmax()
    size = real.abs()
    found = [real.sum(dtype=wide), size.sum(dtype=wide), _norm(real, wide), low, high]
    return torch.stack([figure.to(wide) for figure in found])


def _norm(values: Tensor, wide: torch.dtype) -> Tensor:
    if not values.is_floating_point():
        values = values.to(wide)
    found: Tensor = torch.linalg.vector_norm(values, dtype=torch.promote_types(values.dtype, wide))
    return found


def _moments_differ(one: list[float], other: list[float], count: int, allowed: Tolerance) -> bool:
    """Whether two tensors cannot have these moments where all their elements are within the tolerance."""
    relative, absolute = allowed
    size, norm, top = one[1], one[2], largest_finite(one[3], one[4])
    rounding = 1e-9
    bounds = (
        *(count * absolute + relative * size + rounding * size,) * 2,
        math.sqrt(count) * absolute + relative * norm + rounding * norm,
        *(absolute + relative * top,) * 2,
    )
    return any(map(apart, one, other, bounds))
