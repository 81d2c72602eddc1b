"""Runs a specimen forward and backward, keeps all that the run left behind, and compares two such runs bit by bit."""

import pickle
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from zoo.models import Specimen, leaves

PLAIN = (NoneType, bool, int, float, complex, str, bytes, type, torch.dtype, torch.device, torch.Size)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """All that one run left behind: each part maps the name or path of a value to the value."""

    outputs: Mapping[str, Any]
    loss: Mapping[str, Any]
    parameter_gradients: Mapping[str, Any]
    input_gradients: Mapping[str, Any]
    buffers: Mapping[str, Any]
    random_states: Mapping[str, Any]


def run(
    specimen: Specimen,
    *,
    train: bool,
    around: Callable[[nn.Module], AbstractContextManager[Any]] = nullcontext,
) -> Outcome:
    """Builds the model, seeds, runs it forward and (where the loss has a graph) backward inside `around(model)`."""
    with one_thread(), expected(specimen.warnings):
        model = specimen.build().train(train)
        args, kwargs = specimen.inputs()
        seed_everything()

        with around(model):
            output = model(*args, **kwargs)
            loss = specimen.loss(output)
            if loss.requires_grad:
                loss.backward()

        return Outcome(
            outputs=dict(leaves(output)),
            loss={"": loss},
            parameter_gradients={name: parameter.grad for name, parameter in model.named_parameters()},
            input_gradients={path: leaf.grad for path, leaf in leaves((args, kwargs)) if asks_gradient(leaf)},
            buffers=dict(model.named_buffers()),
            random_states=random_states(),
        )


def assert_identical(a: Outcome, b: Outcome) -> None:
    """Raises AssertionError, naming each value that differs, unless the outcomes are the same to the last bit."""
    found = [line for field in fields(Outcome) for line in differences(field.name, a, b)]
    assert not found, "\n".join([f"{len(found)} values differ:", *found])


GRADIENTS = ("parameter_gradients", "input_gradients")


def assert_close_gradients(a: Outcome, b: Outcome) -> None:
    """Raises AssertionError, naming what differs: gradients by more than their rounding, all else by a bit."""
    exact = [field.name for field in fields(Outcome) if field.name not in GRADIENTS]
    found = [line for part in exact for line in differences(part, a, b)]
    for part in GRADIENTS:
        left, right = getattr(a, part), getattr(b, part)
        assert left.keys() == right.keys()
        found += [f"{part} {path}" for path in left if not gradients_are_close(left[path], right[path])]
    assert not found, "\n".join([f"{len(found)} values differ:", *found])


def gradients_are_close(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two gradients differ by no more than what the order of their sums makes."""
    if a is None or b is None:
        return a is b
    return all(
        x.shape == y.shape and (x - y).abs().sum() <= 1e-4 * y.abs().sum() + 1e-6
        for x, y in zip(map(torch.nan_to_num, dense_parts(a)), map(torch.nan_to_num, dense_parts(b)), strict=True)
    )


def differences(part: str, a: Outcome, b: Outcome) -> Iterator[str]:
    """Gives a line for each value of one part of the outcomes that differs or that only one of them has."""
    left, right = getattr(a, part), getattr(b, part)

    for path in {**left, **right}:
        if path not in left or path not in right:
            yield f"{part} {path}: only in the {'second' if path in right else 'first'}"
        elif reason := difference(left[path], right[path]):
            yield f"{part} {path}: {reason}"


def difference(a: Any, b: Any) -> str | None:
    """Says how two leaves differ, or gives None where they are identical."""
    if type(a) is not type(b):
        return f"{type(a).__name__} vs {type(b).__name__}"
    if isinstance(a, Tensor):
        return tensor_difference(a, b)
    if isinstance(a, PLAIN) and a != b:
        return f"{a!r:.60} vs {b!r:.60}"
    return None


def tensor_difference(a: Tensor, b: Tensor) -> str | None:
    """Says how two tensors of any layout differ, in kind first and then in bits, or gives None."""
    for aspect in ("layout", "dtype", "device", "requires_grad", "is_nested"):
        if getattr(a, aspect) != getattr(b, aspect):
            return f"{aspect} {getattr(a, aspect)} vs {getattr(b, aspect)}"

    ours, theirs = dense_parts(a), dense_parts(b)
    if [part.shape for part in ours] != [part.shape for part in theirs]:
        return f"shape {[tuple(part.shape) for part in ours]} vs {[tuple(part.shape) for part in theirs]}"

    changed = sum(int((bits(x) != bits(y)).any(dim=1).sum()) for x, y in zip(ours, theirs, strict=True))
    return f"{changed} of {sum(part.numel() for part in ours)} elements" if changed else None


def dense_parts(tensor: Tensor) -> list[Tensor]:
    """Gives the dense tensors that a dense, nested or sparse tensor is made of."""
    tensor = tensor.detach()
    if tensor.is_nested:
        return list(tensor.unbind())
    if tensor.is_sparse:
        return [torch.tensor(tensor.shape), tensor._indices(), tensor._values()]
    return [tensor]


def bits(tensor: Tensor) -> Tensor:
    """Gives the bytes of a dense tensor, shape (elements, bytes of one element), in which NaN equals itself."""
    flat = tensor.resolve_conj().resolve_neg().reshape(-1, 1)
    pairs = torch.view_as_real(flat).flatten(1) if flat.is_complex() else flat
    return pairs.contiguous().view(torch.uint8)


def asks_gradient(leaf: Any) -> bool:
    """Says whether a leaf of the inputs is a tensor whose gradient is compared."""
    return isinstance(leaf, Tensor) and leaf.requires_grad


def seed_everything(seed: int = 0) -> None:
    """Seeds every generator that a model may draw from: torch's, numpy's and Python's."""
    torch.manual_seed(seed)
    numpy.random.seed(seed)
    random.seed(seed)


def random_states() -> dict[str, Any]:
    """Gives the state of every generator that `seed_everything` seeds, in forms that compare by value."""
    return {
        "torch": torch.get_rng_state(),
        "numpy": pickle.dumps(numpy.random.get_state()),
        "python": pickle.dumps(random.getstate()),
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Keeps torch to one thread, since the order of a sum may depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def expected(messages: tuple[str, ...]) -> Iterator[None]:
    """Ignores the warnings whose messages match one of these regular expressions."""
    with warnings.catch_warnings():
        for message in messages:
            warnings.filterwarnings("ignore", message=message)
        yield
