"""Run a model for a comparison, and compare two such runs."""

import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import Module

from hookline.compare.buffers import Buffers, buffers_of, with_buffers
from hookline.compare.calls import compare_calls
from hookline.compare.difference import Pair
from hookline.compare.inputs import Inputs
from hookline.compare.randomness import drawing
from hookline.compare.rounded_model import Rounding, rounded_parameters, rounding_outputs
from hookline.compare.tolerances import Allowed
from hookline.compare.weight_gradients import Gradients, weight_gradients, with_weight_gradients
from hookline.errors import ArgumentTypeError
from hookline.matching.match import Matching
from hookline.model.copies import copied_arguments
from hookline.model.restored import restored
from hookline.model.select import Selection
from hookline.model.tensors import tensors
from hookline.record.draws import Draws
from hookline.record.keep import Keep, Leaf, keeper, takes_call, version_of
from hookline.record.record import Run
from hookline.record.recorder import recording
from hookline.record.statistics import Pending

Loss: TypeAlias = Callable[[Any], Tensor | None]


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """One of the two models that are compared, and how it is run.

    - `which`: "first", the reference, or "second";
    - `selection`: the modules whose calls are recorded;
    - `inputs`: its arguments, fitted to it; `fitting`: how they were fitted, in words, "" where they were not;
    - `loss`: of its output, for the backward pass; None for the forward alone;
    - `keep`: what is kept of each tensor.
    """

    which: str
    selection: Selection
    inputs: Inputs
    fitting: str
    loss: Loss | None
    keep: Keep

    @property
    def model(self) -> Module:
        """The model itself."""
        return self.selection.model

    @property
    def modules(self) -> Mapping[str, Module]:
        """The recorded modules by path."""
        return self.selection.modules


@dataclass(frozen=True, slots=True)
class ModelRun:
    """What one run of a model made: its calls, the gradients of its parameters, the buffers that it updated, and the
    calls that drew random numbers in evaluation."""

    run: Run
    gradients: Gradients
    buffers: Buffers
    draws: Draws


def run_model(side: ComparedModel, *, rounding: Rounding | None = None) -> ModelRun:
    """Run a model once, forward and, with a loss, backward; afterwards restore the model and the random state. With
    `rounding` its weights, outputs and gradients are rounded."""
    selection, model = side.selection, side.model
    keep = Once(side.keep) if callable(side.keep) or side.keep == "copy" else side.keep
    grads: bool | Any = "input" if side.loss else False
    with torch.inference_mode(False), torch.set_grad_enabled(bool(grads)), ExitStack() as stack:
        args, kwargs = copied_arguments(side.inputs)  # inside, since autograd takes no copy that inference mode makes
        held = stack.enter_context(restored(model, (args, kwargs)))
        with drawing(selection) as draws, recording(selection, keep=keep, inputs=keep, grads=grads) as run:
            parameters = {} if rounding is None else rounded_parameters(model, rounding)
            if rounding is None:
                output = model(*args, **kwargs)
            else:
                stack.enter_context(rounding_outputs(selection, rounding))
                output = functional_call(model, parameters, args, kwargs)
            buffers = buffers_of(held, _restored_leaf(side.keep))
            scalar = side.loss(output) if side.loss else None
            if scalar is not None and any(tensor.requires_grad for _, tensor in tensors(output)):
                torch.autograd.backward(scalar)
        gradients = weight_gradients(selection, keeper(keep, Pending()), parameters) if grads else {}
        return ModelRun(run, gradients, buffers, draws)


def compare_model_runs(
    ours: ModelRun, theirs: ModelRun, matching: Matching, partners: Mapping[str, str], keep: Keep, allowed: Allowed
) -> list[Pair]:
    """A Pair for each matched call, with the gradients of parameters and with the updated buffers of the modules that
    are `partners`."""
    pairs = compare_calls(ours.run, matching, allowed)
    pairs = with_weight_gradients(pairs, ours.gradients, theirs.gradients, allowed)
    return with_buffers(pairs, ours.buffers, theirs.buffers, partners, _restored_leaf(keep), allowed)


def _restored_leaf(keep: Keep) -> Leaf:
    """What keeps a tensor that is restored after the run, to which a reference is no use."""
    return keeper("copy" if keep == "tensor" else keep, Pending())


class Once:
    """What `keep` makes of a tensor, made once where the tensor comes again unchanged: the output of one module is the
    input of the next."""

    def __init__(self, keep: Keep) -> None:
        if takes_call(keep):
            raise ArgumentTypeError("the keep of a diff is a function of the tensor alone: one tensor has many calls")
        self.make: Callable[..., Any] = keep if callable(keep) else lambda tensor: tensor.detach().clone()
        self.made: dict[int, tuple[weakref.ref[Tensor], int, Any]] = {}

    def __call__(self, tensor: Tensor) -> Any:
        """What `keep` makes of this tensor."""
        key, version = id(tensor), version_of(tensor)
        reference, last, found = self.made.get(key, (None, None, None))
        if reference is not None and reference() is tensor and last == version:
            return found
        found = self.make(tensor)
        if version is not None:
            self.made[key] = weakref.ref(tensor, lambda _: self.made.pop(key, None)), version, found
        return found
