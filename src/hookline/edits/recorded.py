"""Edits that take values from a recorded run: patch, mean, resample."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from hookline.edits.arithmetic import generator_for, instead_of, misfit
from hookline.edits.edit import Edit, Spot
from hookline.errors import EditError
from hookline.model.keypath import named, part_at, what_is_in
from hookline.model.tensors import leaves
from hookline.record.record import CallRecord, Run, TensorInfo


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class patch(Edit):
    """The value from a recorded call: activation patching.

    By default the value comes from the same module and the same call, counted from when the edit was added. `path` and
    `index` pick another module or call. Record the run with `watch(keep="copy")` or `keep="tensor"`; patching inputs
    also needs `inputs=`, patching gradients `grads=`.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh())
    >>> with hookline.watch(model, keep="copy") as clean:
    ...     expected = model(torch.ones(1, 2))
    >>> with hookline.edit(model, "0", output=hookline.edits.patch(clean)):
    ...     torch.equal(model(torch.zeros(1, 2)), expected)
    True
    """

    run: Run
    path: str | None = None
    index: int | None = None
    located: ClassVar[bool] = True

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The recorded value."""
        path = spot.path if self.path is None else self.path
        call = self.run[path, spot.index if self.index is None else self.index]
        return instead_of(tensor, recorded(call, spot))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class mean(Edit):
    """The mean of the module's values in a recorded run, over all of its calls and over the axes `over`, by default the
    batch."""

    run: Run
    over: tuple[int, ...] = (0,)
    located: ClassVar[bool] = True

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The mean, for every example."""
        whole = replace(spot, at=None)
        total: Tensor | None = None
        count = 0
        for call in self.run.calls_of(spot.path):
            value = recorded(call, whole)
            part = value.sum(self.over, keepdim=True, dtype=torch.float64)
            if total is not None and part.shape != total.shape:
                raise EditError(
                    f"the calls of {spot.path!r} in the run differ in shape ({[*total.shape]} and {[*part.shape]}); "
                    f"take the mean over more axes than over={self.over}"
                )
            total = part if total is None else total + part
            count += value.numel() // max(part.numel(), 1)
        assert total is not None  # calls_of raises for a path without calls
        return instead_of(tensor, part_of(total / count, tensor, spot))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class resample(Edit):
    """For each example the module's value for another example, drawn at random from a recorded run.

    The edit has its own generator: the random state of the model does not change.
    """

    run: Run
    seed: int = 0
    located: ClassVar[bool] = True

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """A drawn example for each one in the batch."""
        shape = spot.shape or tuple(tensor.shape)
        rows = [row for call in self.run.calls_of(spot.path) for row in recorded(call, replace(spot, at=None))]
        fitting = [row for row in rows if row.shape == shape[1:]]
        if not fitting:
            raise EditError(
                f"the run has no example of {spot.path!r} of shape {[*shape[1:]]}; it has {what_is_in(rows)}"
            )
        generator = generator_for(self.seed, spot, torch.device("cpu"))
        drawn = torch.randint(len(fitting), shape[:1], generator=generator)
        whole = torch.stack([fitting[place] for place in drawn])
        return instead_of(tensor, whole if spot.at is None else whole[spot.at])


def part_of(mean: Tensor, tensor: Tensor, spot: Spot) -> Tensor:
    """The part of a mean at a spot, after broadcasting it to the whole tensor."""
    if spot.at is None:
        return mean
    try:
        return mean.expand(spot.shape)[spot.at]
    except RuntimeError:
        raise misfit(mean, tensor) from None


def recorded(call: CallRecord, spot: Spot) -> Tensor:
    """The tensor of a recorded call at a spot; EditError where the run kept none."""
    info = _info(call, spot)
    if spot.part.startswith("grad"):
        if info.grad is None:
            raise EditError(f"the {_name(call, spot)} has no gradient in the run; watch with grads=")
        info = info.grad
    value = info.value
    if not isinstance(value, Tensor):
        option = "keep" if "output" in spot.part else "inputs"
        raise EditError(f"the run kept no tensor of the {_name(call, spot)}; watch with {option}='copy'")
    return value if spot.at is None else value[spot.at]


def _info(call: CallRecord, spot: Spot) -> TensorInfo:
    data = call.output if "output" in spot.part else named(call.args, call.kwargs)
    try:
        found = part_at(data, spot.keys)
    except KeyError:
        found = None
    if isinstance(found, TensorInfo):
        return found
    only = [info for _, info in leaves(data, kind=TensorInfo)]
    if len(only) != 1:
        raise EditError(f"the {_name(call, spot)} has no tensor at {spot.keys!r} in the run; it is {data!r}")
    info: TensorInfo = only[0]
    return info


def _name(call: CallRecord, spot: Spot) -> str:
    part = spot.part.removeprefix("grad_")
    return f"{part} of {call.path or 'the model'} ({call.type}, call {call.index})"
