"""Copies of the rows of a batch: on the host, without making the device wait, or where they are."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Copies(ABC):
    """Copies tensors that the model may change after a hook saw them."""

    @abstractmethod
    def moves(self, values: Tensor) -> bool:
        """Whether a copy of a tensor is on another device."""

    @abstractmethod
    def copy(self, values: Tensor) -> Tensor:
        """A copy of a tensor."""

    @abstractmethod
    def wait(self) -> None:
        """Wait until all copies are made."""


class DeviceCopies(Copies):
    """Copies of tensors on the device that they are on."""

    def moves(self, values: Tensor) -> bool:
        """Never."""
        return False

    def copy(self, values: Tensor) -> Tensor:
        """A copy of a tensor where it is."""
        return values.clone()

    def wait(self) -> None:
        """Nothing to wait for: the device does one thing after another."""


class HostCopies(Copies):
    """Copies of tensors on the host. On a CUDA device a stream of its own makes them, while the model goes on; they are
    complete after `wait()`."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def moves(self, values: Tensor) -> bool:
        """Whether a tensor is not on the host."""
        return values.device.type != "cpu"

    def copy(self, values: Tensor) -> Tensor:
        """A copy of a tensor on the host."""
        if values.device.type == "cpu":
            return values.clone()
        if values.device.type != "cuda":
            return values.cpu()
        stream = self._streams.get(values.device)
        if stream is None:
            stream = self._streams[values.device] = torch.cuda.Stream(values.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(values.device))
        with torch.cuda.stream(stream):
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
        values.record_stream(stream)  # its memory is not used anew before the copy is made
        return host

    def wait(self) -> None:
        """Wait until all copies are made."""
        for stream in self._streams.values():
            stream.synchronize()
