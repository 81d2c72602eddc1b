"""Fingerprints: a tensor in a few hundred numbers, compared exactly by a digest and closely by samples."""

import math
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from hookline.matching.tensors import BITS, Difference, Tolerance, apart, figures, largest_finite, plain

Fingerprint: TypeAlias = dict[str, Any]
"""The result of `fingerprint`: a small dict of numbers and tensors, to compare with another."""

VERSION = 2
SAMPLES = 256
WORDS = 2**18  # words that are digested together
ODD = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: Knuth's multiplier to scatter numbers
WRAP = 2**64
UNREDUCED = {torch.uint16, torch.uint32, torch.uint64}  # PyTorch has few operations for these


def fingerprint(tensor: Tensor) -> Fingerprint | None:
    """Fingerprint a tensor, for `watch(keep=hookline.fingerprint)`: about 2 KB for float32 of any size.

    It has a digest of all elements, 256 sampled elements (or all, if there are fewer), and sum, sum of magnitudes,
    norm, minimum and maximum. Tensors of one size are sampled at the same places. None for a tensor without elements to
    read.

    It does not wait for a device. Fingerprints from different processes, devices and versions can be compared.

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
    """Whether a kept value is a complete fingerprint."""
    if not isinstance(value, dict) or value.get("fingerprint") != VERSION:
        return False
    counts = type(value.get("count")) is int and 0 <= value["count"] < 2**63
    return counts and all(isinstance(value.get(name), Tensor) for name in ("digest", "samples", "moments"))


def same_elements(one: Fingerprint, other: Fingerprint) -> bool:
    """Whether two fingerprints are of tensors with equal elements; 0.0 equals -0.0, and NaN equals NaN."""
    alike = one["count"] == other["count"] and one["samples"].dtype == other["samples"].dtype
    return alike and torch.equal(one["digest"].cpu(), other["digest"].cpu())


def compare_fingerprints(one: Fingerprint, other: Fingerprint, told: dict[str, Any], allowed: Tolerance) -> Difference:
    """The difference of two tensors by their fingerprints; `told` holds their shapes and dtypes.

    The figures are of the samples. The tensors differ if a sample does, or if their moments are further apart than
    those of tensors within the tolerance. Without tolerance they differ if any element does.
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
    """The places of the sampled elements: one in each of 256 ranges, scattered by a hash of the count."""
    if count <= SAMPLES:
        return torch.arange(count, device=device)
    places = [place * count // SAMPLES for place in range(SAMPLES + 1)]
    scattered = ((place + 1) * (count | 1) * ODD % WRAP >> 32 for place in range(SAMPLES))
    chosen = [low + far % (high - low) for low, high, far in zip(places, places[1:], scattered, strict=False)]
    return torch.tensor(chosen).to(device, non_blocking=True)


def digest(values: Tensor) -> Tensor:
    """A 64-bit hash of a row of elements and their order, as an int64 of shape [1].

    Equal elements hash alike: 0.0 and -0.0, and NaN with any bits. The hash adds integers that wrap around, so that the
    device and the order of additions do not matter.
    """
    if values.is_floating_point() and values.element_size() == 1:
        values = values.to(torch.float16)  # 8-bit floats cannot be added
    found = torch.full((1,), values.numel(), dtype=torch.int64, device=values.device)
    size = next(size for size in (8, 4, 2, 1) if values.numel() * values.element_size() % size == 0)
    step = max(1, WORDS * size // values.element_size())
    for start in range(0, values.numel(), step):
        part = _words(_in_equal_bits(values[start : start + step]), size).to(torch.int64)
        part = _folded(part, 29) * _weights(values.device)[: part.numel()]
        found = found * _signed(ODD) + _folded(part).sum()
    return found


def _in_equal_bits(values: Tensor) -> Tensor:
    """The elements with equal ones in equal bits."""
    if values.is_complex():
        return _in_equal_bits(torch.view_as_real(values).reshape(-1))
    if not values.is_floating_point():
        return values
    values = values + 0  # makes 0.0 of -0.0
    return values.nan_to_num_(nan=math.nan, posinf=math.inf, neginf=-math.inf)  # a tenth of the time of a mask


def _folded(words: Tensor, by: int = 32) -> Tensor:
    """Each word with its upper bits XORed onto the lower ones, which is a one-to-one map.

    Without it bits that a multiplication shifts out at the top would not count. Before multiplying, `by` must not be a
    multiple of 8: the signs of two floats in a word would cancel, and a tensor could hash like its negative.
    """
    return words ^ ((words >> by) & ((1 << (64 - by)) - 1))


def _words(values: Tensor, size: int) -> Tensor:
    """The bits of the elements as integers of `size` bytes."""
    if values.dtype == torch.bool:
        return values.view(torch.uint8)
    whole = values.contiguous()
    in_place = whole.storage_offset() * whole.element_size() % size == 0
    return (whole if in_place else whole.clone()).view(BITS[size])


@lru_cache(maxsize=8)
def _weights(device: torch.device) -> Tensor:
    """An odd weight for each place, so that no change of a single word is lost."""
    return ((torch.arange(1, WORDS + 1, device=device) * _signed(ODD)) ^ 0x5BF03635) | 1


def _signed(number: int) -> int:
    return number - WRAP if number >= WRAP // 2 else number


def _moments(values: Tensor) -> Tensor:
    """Sum, sum of magnitudes, norm, minimum and maximum; of the magnitudes if the elements are complex."""
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
    """Whether these moments rule out that all elements are within the tolerance."""
    relative, absolute = allowed
    size, norm, top = one[1], one[2], largest_finite(one[3], one[4])
    rounding = 1e-9
    bounds = (
        *(count * absolute + relative * size + rounding * size,) * 2,
        math.sqrt(count) * absolute + relative * norm + rounding * norm,
        *(absolute + relative * top,) * 2,
    )
    return any(map(apart, one, other, bounds))
