"""The memory of a tensor as bytes, without a copy and without numpy."""

import ctypes

from torch import Tensor


def memory_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, to be read or written. They are there for as long as the tensor is.

    >>> import torch
    >>> memory_of(torch.tensor([1, 256], dtype=torch.int16)).tobytes()
    b'\\x01\\x00\\x00\\x01'
    """
    if not tensor.nbytes:
        return memoryview(b"")
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")
