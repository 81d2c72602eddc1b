"""Recorded values back from a document. Each member is checked: what is read can be printed, paged and compared."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from hookline.model.sharded import Part
from hookline.model.tensors import SCALARS, Fields, Opaque
from hookline.record.record import Slot, TensorInfo
from hookline.record.statistics import BINS, Stats
from hookline.store.members import (
    NOT_FINITE,
    MemberError,
    count,
    expect_object,
    expected,
    flag,
    listed,
    maybe,
    member,
    number,
    one_of,
    optional,
    pair,
    parts,
    shown,
    text,
    whole,
)

DEEPEST = 100  # values inside of values: more than any recorded one has, and less than Python's own limit
DTYPES = {name: found for name in dir(torch) if isinstance(found := getattr(torch, name), torch.dtype)}
SAMPLES, MOMENTS = 256, 5  # of a fingerprint

INFO = frozenset(("kind", "shape", "dtype", "device", "requires_grad", "part", "stats", "grad", "value"))
FIGURES = ("min", "max", "mean", "std", "norm")
STATS = frozenset(("count", *FIGURES, "zeros", "nan", "inf", "histogram"))
PART = frozenset(("shape", "placement", "mesh", "ranks", "place"))


class Values:
    """Reads the values of one document, with the tensors that it names."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.depth = 0

    def value(self, data: Any) -> Any:
        """A value: null, true, false, a number, text, a list of values, or an object that says its kind."""
        if not isinstance(data, list | dict):
            return number(data) if isinstance(data, float) else data
        if self.depth == DEEPEST:
            raise MemberError(f"is nested more than {DEEPEST} deep")
        self.depth += 1
        try:
            if isinstance(data, list):
                return parts(data, self.value)
            kind = member(data, "kind", one_of(*DECODERS))
            return DECODERS[kind](self, data)
        finally:
            self.depth -= 1

    def info(self, data: Any) -> TensorInfo:
        """What is known of a tensor, that of its gradient included."""
        expect_object(data, INFO)
        info = TensorInfo()
        info.shape = member(data, "shape", shape_of)
        info.dtype = member(data, "dtype", dtype_of)
        info.device = member(data, "device", device_of)
        info.requires_grad = member(data, "requires_grad", flag)
        if "part" in data:
            info._part = member(data, "part", part_of)
        if "stats" in data:
            info._stats = member(data, "stats", stats_of)
        if "grad" in data:
            info._grad = Slot(member(data, "grad", self._gradient))
        if "value" in data:
            info._value = member(data, "value", self.value)
            if isinstance(info._value, dict) and info._value.get("fingerprint") == 1:
                member(data, "value", lambda _: expect_fingerprint(info._value, info.local_shape))
        return info

    def _gradient(self, data: Any) -> TensorInfo:
        if isinstance(data, dict) and "grad" in data:
            raise MemberError("a gradient has no gradient").within("grad")
        return self.info(data)

    def stored(self, data: Any) -> Tensor:
        """A tensor of the file of tensors."""
        name = member(expect_object(data, frozenset(("kind", "name"))), "name", text)
        if name not in self.tensors:
            raise MemberError(f"names a tensor {shown(name)} that is not in tensors.safetensors").within("name")
        return self.tensors[name]

    def tuple(self, data: Any) -> tuple[Any, ...]:
        """A tuple."""
        return member(expect_object(data, frozenset(("kind", "parts"))), "parts", listed(self.value))

    def dict(self, data: Any) -> Any:
        """A mapping."""
        return self._parts(expect_object(data, frozenset(("kind", "parts"))), SCALARS, "a number, text or null")

    def fields(self, data: Any) -> Fields:
        """Named parts of a value that had a class of its own."""
        expect_object(data, frozenset(("kind", "type", "parts")))
        return Fields(member(data, "type", text), self._parts(data, (str,), "text"))

    def _parts(self, data: Any, kinds: Any, what: str) -> Any:
        found: dict[Any, Any] = {}

        def put(each: Any) -> None:
            key, part = pair(each, self.value)
            if not isinstance(key, kinds):
                raise MemberError(f"a key is {what}, not a {type(key).__name__}").within(0)
            if key in found:
                raise MemberError(f"the key {shown(key)} stands here twice").within(0)
            found[key] = part

        member(data, "parts", listed(put))
        return found


def _float(_: Values, data: Any) -> float:
    value = member(expect_object(data, frozenset(("kind", "value"))), "value", one_of(*NOT_FINITE))
    return NOT_FINITE[value]


def _complex(_: Values, data: Any) -> complex:
    real, imaginary = member(
        expect_object(data, frozenset(("kind", "value"))), "value", lambda value: pair(value, number)
    )
    return complex(real, imaginary)


def _opaque(_: Values, data: Any) -> Opaque:
    return Opaque(member(expect_object(data, frozenset(("kind", "type"))), "type", text))


DECODERS: dict[str, Callable[[Values, Any], Any]] = {
    "tensor": Values.info,
    "stored": Values.stored,
    "float": _float,
    "complex": _complex,
    "opaque": _opaque,
    "tuple": Values.tuple,
    "dict": Values.dict,
    "fields": Values.fields,
}


# Parts of a TensorInfo


def shape_of(value: Any) -> tuple[int, ...]:
    """A shape: -1 stands for a ragged dimension."""
    return tuple(parts(value, lambda size: whole(size, -1)))


def dtype_of(value: Any) -> torch.dtype:
    """A dtype by its name in PyTorch."""
    if text(value) not in DTYPES:
        raise expected("the name of a dtype, as 'float32'", value)
    return DTYPES[value]


def device_of(value: Any) -> torch.device:
    """A device by its name in PyTorch."""
    try:
        return torch.device(text(value))
    except (RuntimeError, ValueError):
        raise expected("the name of a device, as 'cuda:0'", value) from None


def stats_of(data: Any) -> Stats:
    """Statistics."""
    expect_object(data, STATS)
    return Stats(
        count=member(data, "count", count),
        **{name: member(data, name, number) for name in FIGURES},
        zeros=member(data, "zeros", share),
        nan=member(data, "nan", count),
        inf=member(data, "inf", count),
        histogram=optional(data, "histogram", _histogram, None),
    )


def share(value: Any) -> float:
    """A share: from 0 to 1, or NaN where there is none."""
    found = number(value)
    if not 0 <= found <= 1 and found == found:
        raise expected("a number from 0 to 1, or 'nan'", value)
    return found


def _histogram(value: Any) -> tuple[int, ...]:
    found = parts(value, count)
    if len(found) != BINS:
        raise expected(f"a list of {BINS}", value)
    return tuple(found)


def part_of(data: Any) -> Part:
    """Which part of a distributed tensor it is."""
    expect_object(data, PART)
    found = Part(
        shape=member(data, "shape", shape_of),
        placement=member(data, "placement", listed(text)),
        mesh=member(data, "mesh", listed(lambda size: whole(size, 1))),
        ranks=member(data, "ranks", listed(count)),
        place=member(data, "place", maybe(listed(count))),
    )
    if len(found.placement) != len(found.mesh):
        raise MemberError(f"has to have {len(found.mesh)} parts, as the mesh has").within("placement")
    if len(found.ranks) != prod(found.mesh):
        raise MemberError(f"has to have {prod(found.mesh)} parts, as the mesh says").within("ranks")
    if found.place is not None and (
        len(found.place) != len(found.mesh) or not all(map(int.__lt__, found.place, found.mesh))
    ):
        raise MemberError("is not in the mesh").within("place")
    return found


def expect_fingerprint(value: dict[Any, Any], shape: tuple[int, ...]) -> None:
    """MemberError where a fingerprint does not hold what `hookline.fingerprint` makes of a tensor of this shape."""
    known = member(value, "count", count)
    if min(shape, default=0) >= 0 and known != prod(shape):
        raise expected(f"{prod(shape)}, as the shape says", known).within("count")
    sizes = {"digest": (1,), "samples": (min(known, SAMPLES),), "moments": (MOMENTS,)}
    for name, size in sizes.items():
        found = member(value, name, lambda part: part)
        if not isinstance(found, Tensor) or tuple(found.shape) != size:
            raise MemberError(f"is not the tensor of {size[0]} that a fingerprint has there").within(name)
    if value["digest"].dtype != torch.int64:
        raise MemberError("is not of int64").within("digest")
    if not value["moments"].dtype.is_floating_point:
        raise MemberError("is not of floats").within("moments")
