"""Find out whether every element of a tensor is finite, from its smallest and largest, without waiting for a device."""

import math
import weakref
from collections.abc import Iterable
from typing import TypeAlias, cast

import torch
from torch import Tensor

from hookline.model.sharded import local_part
from hookline.record.keep import version_of
from hookline.record.record import CallRecord, TensorInfo
from hookline.record.statistics import Pending, Stats, elements, fetch, is_traced, measure, unseen
from hookline.torch_private import is_functorch_wrapped_tensor

AT_ONCE = {"cpu"}  # device types whose figures are read at once
REDUCED_AS_THEY_ARE = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

Bounds: TypeAlias = tuple[Tensor, Tensor] | tuple[float, float]


class Look:
    """One tensor at the time of a look at it: its smallest and largest element.

    - `record`: the call that returned it, or whose output's gradient it is; None for an argument from elsewhere and for
      the gradient of a parameter;
    - `info`: its TensorInfo;
    - `phase`: "forward" or "backward";
    - `low`, `high`: the smallest and largest element, both NaN if an element is; None if unknown;
    - `waiting`: the same two as tensors on a device, until `read` fetches them;
    - `inputs`: the looks at the arguments of that call;
    - `takers`: the calls that received this tensor;
    - `leaves`: the calls around that returned it too.

    It keeps no tensor alive but the two that wait.
    """

    __slots__ = (
        "__weakref__", "high", "info", "inputs", "leaves", "low", "name", "phase", "record", "reference", "takers",
        "version", "waiting",
    )  # fmt: skip

    low: float | None
    high: float | None
    waiting: tuple[Tensor, Tensor] | None

    def __init__(
        self, tensor: Tensor, info: TensorInfo, record: CallRecord | None, *, phase: str = "forward", name: str = ""
    ) -> None:
        self.record, self.info, self.phase, self.name = record, info, phase, name
        self.reference, self.version = weakref.ref(tensor), version_of(tensor)
        self.low = self.high = self.waiting = None
        self.inputs: tuple[Look, ...] = ()
        self.takers: list[CallRecord] = []
        self.leaves: list[CallRecord] = []

    def of(self, tensor: Tensor) -> bool:
        """Whether this is the tensor that was looked at, unchanged since."""
        return self.reference() is tensor and self.version is not None and version_of(tensor) == self.version

    @property
    def tensor(self) -> Tensor | None:
        """The tensor, if it still exists and has not changed."""
        tensor = self.reference()
        return tensor if tensor is not None and version_of(tensor) == self.version else None

    @property
    def looked(self) -> bool:
        """Whether the bounds are known or wait on a device."""
        return self.low is not None or self.waiting is not None

    @property
    def finite(self) -> bool:
        """Whether every element is finite, as far as known."""
        return self.low is None or self.high is None or (math.isfinite(self.low) and math.isfinite(self.high))

    @property
    def masks(self) -> bool:
        """Whether all elements that are not finite are -inf, as in a mask."""
        return self.low == -math.inf and self.high is not None and self.high < math.inf

    def look(self) -> None:
        """Find the bounds: at once on the CPU, as waiting tensors on any other device. Skips a tensor that no longer
        exists."""
        tensor = self.tensor
        bounds = None if tensor is None else bounds_of(tensor)
        if bounds is None:
            return
        low, high = bounds
        if isinstance(low, Tensor):
            self.waiting = cast("tuple[Tensor, Tensor]", bounds)
        else:
            self.low, self.high = low, cast(float, high)

    @property
    def broken(self) -> bool:
        """Whether it has NaN or Inf and is not a mask."""
        return not self.finite and not self.masks

    @property
    def has_mask(self) -> bool:
        """Whether there is -inf among the elements and no NaN."""
        return self.low == -math.inf

    def now(self) -> "Look":
        """This look, with the bounds found."""
        if not self.looked:
            self.look()
        return self

    def stats(self) -> Stats | None:
        """All statistics if the tensor still exists; else the bounds, and NaN for the other figures."""
        tensor = self.tensor
        if tensor is not None:
            measured = measure(tensor, Pending())
            return measured if measured is None or isinstance(measured, Stats) else measured.fetch()
        if self.low is None or self.high is None:
            return None
        unknown = math.nan
        amount = 0 if self.finite else cast(int, unknown)
        count = math.prod(self.info.local_shape)
        return Stats(count, self.low, self.high, unknown, unknown, unknown, unknown, amount, amount)


def can_be_unfinite(tensor: Tensor) -> bool:
    """Whether a tensor's dtype has NaN and Inf, which integers and booleans do not."""
    return tensor.is_floating_point() or tensor.is_complex()


def waits(tensor: Tensor) -> bool:
    """Whether the bounds of a tensor must be fetched from a device."""
    return tensor.device.type not in AT_ONCE


def bounds_of(tensor: Tensor) -> Bounds | None:
    """The smallest and largest element; for complex elements, of their real and imaginary parts.

    They are numbers on the CPU and 0-dimensional tensors on any other device. None if there are no elements to read, or
    PyTorch cannot reduce such a tensor. Of a distributed tensor only the part in this process counts.

    >>> bounds_of(torch.tensor([1.0, -float("inf"), 2.0]))
    (-inf, 2.0)
    >>> bounds_of(torch.tensor([1.0, float("nan"), 2.0]))
    (nan, nan)
    """
    try:
        tensor = local_part(tensor)
        if is_traced(tensor):
            return None
        with unseen(tensor), torch.no_grad():
            values = _readable(tensor.detach())
            if values.is_meta or not values.numel():
                return None
            low, high = values.aminmax()
            if values.device.type in AT_ONCE:
                return low.item(), high.item()
            return None if is_functorch_wrapped_tensor(low) else (low, high)
    except Exception:  # a tensor class may raise anything, and looking never ends a call
        return None


def _readable(values: Tensor) -> Tensor:
    if values.is_complex() and values.layout == torch.strided:
        return torch.view_as_real(values.resolve_conj())
    if values.dtype in REDUCED_AS_THEY_ARE and values.layout == torch.strided and not values.is_nested:
        return values
    return elements(values)


def read(looks: Iterable[Look]) -> None:
    """Fetch the bounds that wait, with one wait for each device."""
    by_device: dict[torch.device, list[Look]] = {}
    for look in looks:
        if look.waiting is not None:
            by_device.setdefault(look.waiting[0].device, []).append(look)
    for device, own in by_device.items():
        figures = iter(fetch(device, [bound for look in own if look.waiting is not None for bound in look.waiting]))
        for look in own:
            look.low, look.high, look.waiting = next(figures), next(figures), None
