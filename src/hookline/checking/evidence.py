"""Evidence: the data that the rules of a check judge by, and helpers to read a run."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import Module

from hookline.model.unregistered import Unregistered
from hookline.record.record import CallRecord, Run, TensorInfo

Place: TypeAlias = tuple[str, int]  # a call: the path of its module, and its index
Source: TypeAlias = tuple[str, int, int]  # one output of a call: path, index, and which of its tensors


@dataclass(frozen=True, slots=True)
class ParameterFacts:
    """What a check saw of one parameter.

    - `path`: the module that holds it;
    - `parameter`: the parameter itself;
    - `nan`, `inf`: the number of NaN and infinite elements before the first call;
    - `norm`, `norm_now`: the L2 norm before the first call, and at the end of the check; None if unknown;
    - `bad_pass`: the first outermost call that began with NaN or Inf in it, None if none did;
    - `where`: where in it these elements were, as text;
    - `bad_gradient`: the first outermost call after which a gradient with NaN or Inf arrived, None if none did;
    - `gradients`: how often a gradient arrived;
    - `renewed`: how often one arrived after an earlier one was removed, as `zero_grad` does;
    - `largest_gradient`: the largest magnitude in any gradient, NaN or Inf if one held that, None without a gradient;
    - `awaited`: whether any gradient arrived, at any parameter, from a call that began while this one required one;
    - `steps`: the number of steps of optimizers that hold it;
    - `rate`, `rates`: the highest learning rate of these steps, and the learning rate of each;
    - `carried`: the number of these steps whose gradient still contained that of the step before;
    - `moved_share`: the largest share of its elements with a gradient that one step changed; bfloat16 and float16 only;
    - `alike`: its rows before the first call: all "equal", each "constant", or "";
    - `moved`: whether any of these steps changed it, None without a step;
    - `ratio`: the L2 norm of the largest change, over that of the parameter before it; 0 for a parameter that started
      close to 0, None without a step;
    - `elsewhere`: whether accelerate offloads it; then it is in its module only during a call, and keeps no gradient.
    """

    path: str
    parameter: Tensor
    nan: int
    inf: int
    norm: float | None
    norm_now: float | None
    bad_pass: int | None
    where: str
    bad_gradient: int | None
    gradients: int
    renewed: int
    largest_gradient: float | None
    awaited: bool
    steps: int
    rate: float | None
    rates: tuple[float, ...]
    carried: int
    moved_share: float | None
    alike: Literal["equal", "constant", ""]
    moved: bool | None
    ratio: float | None
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """The outputs of one activation or softmax, over all of its calls from one place in the model's code.

    - `path`: the module; for torch.relu and F.relu6, the module whose output it takes;
    - `where`: the place as text, "" if there is only one;
    - `call`: the first call from there, None if there is only one place;
    - `observations`: the number of values seen of each unit;
    - `units`: the number of units;
    - `dead`: for rectifiers, the number of units that were always exactly 0;
    - `saturated`: for a sigmoid or tanh, the share of values at the flat ends of its range;
    - `collapsed`: for a softmax, the share of rows with more than 0.999 in one place.

    The last three are None for other modules.
    """

    path: str
    where: str
    call: int | None
    observations: int
    units: int
    dead: int | None
    saturated: float | None
    collapsed: float | None


@dataclass(frozen=True, slots=True)
class Suspect:
    """A tensor that was changed in place after a module returned it, or after a call of the model began with it.

    - `path`, `call`: the module and the call that it belongs to;
    - `name`: its name in messages;
    - `shape`: its shape;
    - `version`, `now`: its version (the number of in-place changes) when it was used, and at the end.
    """

    path: str
    call: int | None
    name: str
    shape: tuple[int, ...]
    version: int
    now: int


@dataclass(frozen=True, slots=True)
class Flow:
    """How one tensor comes from the outputs of other calls.

    - `place`: the call that received it ("input"), or whose own code uses it ("operation");
    - `kind`: "input" or "operation";
    - `sources`: the outputs that it was computed from, without another call in between;
    - `passing`: the sources with only operations in between whose backward computes no new values (a view, a stack, an
      addition);
    - `operations`: the names of the other operations;
    - `direct`: whether it is a source itself, or an operation takes the source itself;
    - `hooked`: whether the gradients on this path were seen;
    - `gradient`: the largest magnitude in them, None if none arrived.
    """

    place: Place
    kind: Literal["input", "operation"]
    sources: tuple[Source, ...]
    passing: tuple[Source, ...]
    operations: tuple[str, ...]
    direct: bool
    hooked: bool
    gradient: float | None


@dataclass(frozen=True, slots=True)
class Use:
    """One outermost call.

    - `path`, `index`: the module and the number of the call;
    - `training`: whether the module was in train mode;
    - `graded`: whether gradients were on;
    - `steps`: the number of optimizer steps on parameters of the model before it.
    """

    path: str
    index: int
    training: bool
    graded: bool
    steps: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Probabilities that reached a loss that takes scores or log-probabilities.

    - `path`: the module that returned them;
    - `made_by`: the operation they come from, "Softmax" or "Sigmoid";
    - `taken_by`: what the loss applies to them: "a softmax", "a sigmoid" or "no logarithm".
    """

    path: str
    made_by: str
    taken_by: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """The data that rules judge by. `run` is always there; the rest is None for a run that was saved or watched.

    - `run`: every call, with statistics of its inputs, its outputs and the gradients of these;
    - `modules`: the watched modules by path;
    - `parameters`: a ParameterFacts for each parameter by name;
    - `units`: a UnitFacts for each activation;
    - `loss`: the loss, if the check ran the backward pass itself;
    - `error`: the exception that ended the check early;
    - `steps`, `other_steps`: the number of optimizer steps on parameters of the model, and on others only;
    - `same_samples`: whether the model always returned the same output for every sample of batches that vary;
    - `autocast`: the paths of modules that ran under autocast;
    - `uses`: the outermost calls, in order;
    - `suspects`: tensors that were changed in place after they were used;
    - `flows`: how tensors came from call to call;
    - `spots`: where in the tensors of the first broken call NaN and Inf are, as text; the key is path, index, and the
      number of the output or the name of the argument;
    - `hidden`: modules and parameters in plain containers, each with its number of gradients;
    - `random`: calls in eval mode that drew random numbers;
    - `growth`: by path, the factor by which the output of a recurrent layer grew from its first time step to its last;
    - `norms`: the norm of all gradients at each optimizer step;
    - `scored`: outputs that reached the loss as probabilities although it takes logits.
    """

    run: Run
    modules: Mapping[str, Module] | None = None
    parameters: Mapping[str, ParameterFacts] | None = None
    units: tuple[UnitFacts, ...] | None = None
    loss: float | None = None
    error: BaseException | None = None
    steps: int | None = None
    other_steps: int | None = None
    same_samples: bool | None = None
    autocast: frozenset[str] | None = None
    uses: tuple[Use, ...] | None = None
    suspects: tuple[Suspect, ...] | None = None
    flows: tuple[Flow, ...] | None = None
    spots: Mapping[tuple[str, int, int | str], str] | None = None
    hidden: tuple[tuple[Unregistered, int], ...] | None = None
    random: tuple[Place, ...] | None = None
    growth: Mapping[str, float] | None = None
    norms: tuple[float, ...] | None = None
    scored: tuple[Scored, ...] | None = None

    def module(self, path: str) -> Module | None:
        """The module of a path, or None without a model."""
        return None if self.modules is None else self.modules.get(path)

    def below(self, path: str) -> dict[str, ParameterFacts]:
        """The facts on the parameters of a module and of those inside it, by name."""
        facts = self.parameters or {}
        return {name: each for name, each in facts.items() if is_below(each.path, path)}

    @property
    def backward_ran(self) -> bool:
        """Whether any gradient arrived, at a parameter or at an output."""
        if any(facts.gradients for facts in (self.parameters or {}).values()):
            return True
        return any(info.grad is not None for call in self.run for info in call.outputs)

    @property
    def ended_early(self) -> bool:
        """Whether an error ended the model, or the training steps around it, early."""
        return self.error is not None or any(call.error and call.parent is None for call in self.run)


# Helpers to read a run


def is_below(path: str, above: str) -> bool:
    """Whether a path is `above` or of a module inside it."""
    return not above or path == above or path.startswith(f"{above}.")


def passes(run: Run) -> list[list[CallRecord]]:
    """The outermost calls, each as a list of all calls inside it and itself, in the order in which they ended."""
    inside: dict[int, list[CallRecord]] = {}
    top: dict[int, int] = {}
    for call in run.calls:  # a parent began before its children
        top[id(call)] = call.number if call.parent is None else top.get(id(call.parent), call.number)
        inside.setdefault(top[id(call)], []).append(call)
    return [sorted(calls, key=lambda call: (ended(call), -call.number)) for calls in inside.values()]


def ended(call: CallRecord) -> float:
    """When a call ended, in seconds from the start of the run."""
    return call.began + call.seconds


def by_path(run: Run, keep: Callable[[CallRecord], bool]) -> dict[str, list[CallRecord]]:
    """The calls that did not raise and for which `keep` is true, by path."""
    found: dict[str, list[CallRecord]] = {}
    for call in run.calls:
        if call.error is None and keep(call):
            found.setdefault(call.path, []).append(call)
    return found


def by_place(run: Run, keep: Callable[[CallRecord], bool]) -> dict[tuple[str, ...], list[CallRecord]]:
    """The calls that did not raise and for which `keep` is true, by path and the place in the model's code.

    The place is the module around, and the module called before.
    """
    before: dict[int, Trail] = {}
    found: dict[tuple[str, ...], list[CallRecord]] = {}
    for call in run.calls:
        key = before.setdefault(id(call.parent) if call.parent else 0, Trail(call.parent is None)).step(call.path)
        if call.error is None and keep(call):
            around = call.parent.path if call.parent else ""
            found.setdefault((call.path, around, *map(str, key)), []).append(call)
    return found


@dataclass(slots=True)
class Trail:
    """The calls made from the code of one call so far, to tell apart the places that call a shared module.

    >>> trail = Trail(outermost=False)
    >>> [trail.step(path) for path in ("norm1", "relu", "norm2", "relu", "relu")][1::2] + [trail.step("relu")]
    [('norm1', 0), ('norm2', 0), ('norm2', 2)]
    """

    outermost: bool
    after: str = ""
    last: str = ""
    again: int = 0

    def step(self, path: str) -> tuple[str, int]:
        """Add a call; returns the module called before it, and how often it was called since then.

        At the top that number stays 0, since a loop calls a module again for each batch.
        """
        if path == self.last:
            self.again += not self.outermost
        else:
            self.after, self.last, self.again = self.last, path, 0
        return self.after, self.again


def broken(info: TensorInfo) -> bool:
    """Whether a tensor is known to have NaN or Inf."""
    stats = info.stats
    return stats is not None and bool(stats.nan or stats.inf)


def only_negative(info: TensorInfo) -> bool:
    """Whether all elements that are not finite are -Inf, as in a mask that is added to scores."""
    stats = info.stats
    return stats is not None and bool(stats.inf) and not stats.nan and stats.max < float("inf")


def floating(infos: list[TensorInfo]) -> list[TensorInfo]:
    """The tensors of a floating dtype."""
    return [info for info in infos if isinstance(info.dtype, torch.dtype) and info.dtype.is_floating_point]


def same(one: TensorInfo, other: TensorInfo) -> bool:
    """Whether two tensors have the same shape and statistics, and so almost certainly the same elements."""
    if one.stats is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return one.stats == other.stats and one.stats.nan == 0


def is_models_own(run: Run, path: str) -> bool:
    """Whether the output of a module's first call is also an output of the model."""
    call = next((call for call in run.calls if call.path == path and call.error is None), None)
    above = None if call is None else [*call.around()]
    if call is None or not above:
        return call is not None
    return any(same(info, own) for info in call.outputs for own in above[-1].outputs)


def starred(path: str) -> str:
    """A path with its numbers replaced by stars, which is the same for repeated layers.

    >>> starred("encoder.layer.11.fc2")
    'encoder.layer.*.fc*'
    """
    return re.sub(r"\d+", "*", path)
