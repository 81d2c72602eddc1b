"""Tests of the memory of a tensor as bytes."""

import gc
import weakref

import pytest
import torch

from hookline.model.memory import memory_of


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.bfloat16, torch.float8_e4m3fn, torch.complex64])
def test_bytes_are_those_of_the_elements(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
    assert memory_of(tensor).tobytes() == bytes(tensor.view(-1).view(torch.uint8).tolist())


def test_writing_changes_the_tensor() -> None:
    tensor = torch.zeros(2, dtype=torch.uint8)
    memory_of(tensor)[1] = 7
    assert tensor.tolist() == [0, 7]


def test_tensor_without_elements_has_no_bytes() -> None:
    assert memory_of(torch.zeros(0, 3)).tobytes() == b""


def test_tensor_lives_as_long_as_its_bytes() -> None:
    tensor = torch.zeros(3)
    reference, memory = weakref.ref(tensor), memory_of(tensor)
    del tensor
    gc.collect()
    assert reference() is not None
    del memory
    gc.collect()
    assert reference() is None
