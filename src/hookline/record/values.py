"""Write a TensorInfo into a document and read it back, checked so that it can be printed, shown and compared."""

from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from hookline.model.sharded import Part
from hookline.record.record import Slot, TensorInfo
from hookline.record.statistics import BINS, Stats
from hookline.store.codec import Kind, Reader, Schema, Writer
from hookline.store.members import (
    MemberError,
    count,
    device,
    dtype,
    expect_object,
    expected,
    flag,
    listed,
    maybe,
    member,
    number,
    parts,
    shape,
    text,
    whole,
)

WHOLE = ("tensor", "copy")  # values of `keep` that keep the tensor unchanged
SAMPLES, MOMENTS = 256, 5  # of a fingerprint


def share(value: Any) -> float:
    """A share from 0 to 1, or NaN for an empty tensor."""
    found = number(value)
    if not 0 <= found <= 1 and found == found:
        raise expected("a number from 0 to 1, or 'nan'", value)
    return found


def histogram(value: Any) -> tuple[int, ...]:
    """The number of elements in each bin."""
    found = parts(value, count)
    if len(found) != BINS:
        raise expected(f"a list of {BINS}", value)
    return tuple(found)


STATS = Schema(
    Stats,
    {
        "count": count,
        **dict.fromkeys(("min", "max", "mean", "std", "norm"), number),
        **{"zeros": share, "nan": count, "inf": count},
    },
    optional={"histogram": histogram},
)
PART = Schema(
    Part,
    {
        **{"shape": shape, "placement": listed(text), "mesh": listed(lambda size: whole(size, 1))},
        **{"ranks": listed(count), "place": maybe(listed(count))},
    },
)
INFO = {"shape": shape, "dtype": dtype, "device": device, "requires_grad": flag}
ALL = frozenset(("kind", *INFO, "part", "stats", "grad", "value"))


def write_info(writer: Writer, info: TensorInfo, name: str) -> dict[str, Any]:
    """A TensorInfo, with that of its gradient, as a value of a document."""
    found: dict[str, Any] = {
        "shape": list(info.shape),
        "dtype": info.dtype_name,
        "device": str(info.device),
        "requires_grad": info.requires_grad,
    }
    if info.part is not None:
        found["part"] = PART.write(info.part)
    if info.stats is not None:
        found["stats"] = STATS.write(info.stats)
    if info.grad is not None:
        found["grad"] = write_info(writer, info.grad, f"{name}.grad")
    if info.value is not None:
        found["value"] = writer.value(info.value, name)
    return found


def read_info(reader: Reader, data: Any, *, whole: bool = False, whole_gradient: bool = False) -> TensorInfo:
    """Read a TensorInfo back. With `whole` its value, or its gradient's, must be a tensor of the described shape."""
    expect_object(data, ALL)
    info = TensorInfo()
    for name, read in INFO.items():
        setattr(info, name, member(data, name, read))
    if "part" in data:
        info._part = member(data, "part", _part)
    if "stats" in data:
        info._stats = member(data, "stats", STATS.read)
    if "grad" in data:
        info._grad = Slot(member(data, "grad", lambda grad: _gradient(reader, grad, whole=whole_gradient)))
    if "value" in data:
        info._value = member(data, "value", reader.value)
        if isinstance(info._value, dict) and info._value.get("fingerprint") == 1:
            member(data, "value", lambda _: expect_fingerprint(info._value, info.local_shape))
        elif whole and isinstance(info._value, Tensor):
            member(data, "value", lambda _: expect_whole(info._value, info))
    return info


KINDS = {"tensor": Kind(TensorInfo, write_info, read_info)}


def kinds_kept(keep: Any, gradient: Any) -> dict[str, Kind]:
    """The kinds for a run with these values of `keep` for tensors and their gradients."""
    read = partial(read_info, whole=keep in WHOLE, whole_gradient=gradient in WHOLE)
    return {"tensor": Kind(TensorInfo, write_info, read)}


def expect_whole(value: Tensor, info: TensorInfo) -> None:
    """MemberError where a kept tensor does not have the shape and dtype that the document says."""
    if tuple(value.shape) != info.local_shape or value.dtype != info.dtype:
        wanted = f"{info.dtype_name}{[*info.local_shape]}"
        raise MemberError(
            f"expected a tensor {wanted}, as the document says, got {str(value.dtype).removeprefix('torch.')}"
            f"{[*value.shape]} in tensors.safetensors"
        )


def _gradient(reader: Reader, data: Any, *, whole: bool) -> TensorInfo:
    if isinstance(data, dict) and "grad" in data:
        raise MemberError("a gradient has no gradient").within("grad")
    return read_info(reader, data, whole=whole)


def _part(data: Any) -> Part:
    found = PART.read(data)
    if len(found.placement) != len(found.mesh):
        raise MemberError(f"must have {len(found.mesh)} parts, as the mesh has").within("placement")
    if len(found.ranks) != prod(found.mesh):
        raise MemberError(f"must have {prod(found.mesh)} parts, as the mesh says").within("ranks")
    if found.place is not None and (
        len(found.place) != len(found.mesh) or not all(map(int.__lt__, found.place, found.mesh))
    ):
        raise MemberError("is not in the mesh").within("place")
    return found


def expect_fingerprint(value: dict[Any, Any], shape: tuple[int, ...]) -> None:
    """MemberError where a fingerprint is not one that `hookline.fingerprint` returns for a tensor of this shape."""
    known = member(value, "count", count)
    if min(shape, default=0) >= 0 and known != prod(shape):
        raise expected(f"{prod(shape)}, as the shape says", known).within("count")
    sizes = {"digest": (1,), "samples": (min(known, SAMPLES),), "moments": (MOMENTS,)}
    for name, size in sizes.items():
        found = member(value, name, lambda part: part)
        if not isinstance(found, Tensor) or tuple(found.shape) != size:
            raise MemberError(f"must be a tensor of {size[0]} in a fingerprint").within(name)
    if value["digest"].dtype != torch.int64:
        raise MemberError("must be of dtype int64").within("digest")
    if not value["moments"].dtype.is_floating_point:
        raise MemberError("must be of a floating dtype").within("moments")
