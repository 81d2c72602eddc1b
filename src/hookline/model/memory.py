"""The memory of a tensor as bytes, without a copy and without numpy."""

import ctypes

from torch import Tensor


def memory_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, to be read or written. The tensor lives for as long as they do.

    >>> import torch
    >>> [*memory_of(torch.tensor([1, 256], dtype=torch.int16))]
    [1, 0, 0, 1]
    """
    if not tensor.nbytes:
        return memoryview(b"")
    array = (ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())
    array.tensor = tensor  # type: ignore[attr-defined]
    return memoryview(array).cast("B")
