"""Evidence: what the rules of a check judge by; and how they read a run."""

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
    """What became of one parameter while a check watched.

    - `path`: of the module that holds it; `parameter`: itself;
    - `nan`, `inf`: how many elements were not finite before anything ran; `norm`: the L2 norm that it had then, and
      `norm_now` when the check ended, None where that cannot be told; `bad_pass`: the first call of the model from
      outside that began with an element that was not finite, None where none did;
    - `where`: in words, where in it these elements lay; `bad_gradient`: the first call of the model from outside after
      which a gradient with such an element arrived, None where none did;
    - `gradients`: how often a gradient arrived; `renewed`: how often one arrived where another had been and was taken
      away, as `zero_grad` does; `largest_gradient`: the largest magnitude in any of them, NaN or Inf where one held
      that, None where none arrived;
    - `awaited`: whether a gradient arrived, at any parameter, of a call that began while this one asked for one;
    - `steps`: how many steps an optimizer that holds it made; `rate`: the highest learning rate of these;
    - `rates`: the learning rate of each; `carried`: how many of them were made of a gradient to which that of the step
      before still belonged;
    - `moved_share`: the largest share of its elements, of those with a gradient, that one of these steps changed; of
      bfloat16 and float16 alone;
    - `alike`: what its rows were like before anything ran: "equal" to one another, each "constant", or "";
    - `moved`: whether any of these steps changed it; `ratio`: the L2 norm of the largest change, over the parameter's
      own before it, 0 of a parameter that was next to nothing before anything ran; both None without a step;
    - `elsewhere`: whether accelerate offloads it: it is in its module only during a call, and keeps no gradient.
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
    """What the elements that one activation or softmax returned were like, over all its calls at one place.

    - `path`: of the module; of a rectifier that is a function (torch.relu, F.relu6), of the module whose output it
      takes;
    - `where`: the place, in words: "" where there is only one; `call`: the first call there, None where there is one;
    - `observations`: how many values of each unit were seen; `units`: how many units there are; `dead`: how many of
      them were exactly 0 each time (rectifiers);
    - `saturated`: the share of values at the flat ends of a sigmoid or tanh; `collapsed`: the share of a softmax's rows
      in which one value has more than 0.999 of all. None for other modules.
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
    """A tensor that was changed in place after a module gave it, or after the model's call began with it: whose, what
    it is called, its shape, how often it had been changed when it was used, and how often since."""

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
    - `sources`: the outputs that it was computed of, with no other call between; `passing`: those from which only
      operations lead to it whose backward makes no new numbers (a view, a stack, an addition);
    - `operations`: the names of the others; `direct`: whether it is that very tensor, or uses it itself;
    - `hooked`: whether the gradients on this way were seen; `gradient`: the largest magnitude in them, None where none
      came.
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
    """One outermost call: whose and which, in which mode, whether with gradients, and how many optimizer steps had been
    made on parameters of the model when it began."""

    path: str
    index: int
    training: bool
    graded: bool
    steps: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Probabilities that reached a loss which makes probabilities itself: the path of the module that made them, the
    operation they come from ("Softmax", "Sigmoid"), and what the loss does with them ("cross entropy", ...)."""

    path: str
    made_by: str
    taken_by: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a check knows. `run` is always there; the rest is None for a run that was saved, or made by `watch`.

    - `run`: every call, with statistics of what it took and gave, and of gradients;
    - `modules`: the watched modules by path; `parameters`: facts by name; `units`: facts on activations;
    - `loss`: the loss, where the check ran the backward pass itself; `error`: what ended the check early;
    - `steps`: how many optimizer steps were made on parameters of the model; `other_steps`: on none of them;
    - `same_samples`: whether the model itself gave the same for every sample, always, of batches that differ;
    - `autocast`: paths of modules that ran under autocast; `uses`: the outermost calls, in order;
    - `suspects`: tensors that were changed in place after they were used; `flows`: how tensors came from call to call;
    - `spots`: where in a tensor of the first broken call the elements lie that are not finite, in words; by path and
      index, and the number of the output or the name of the argument;
    - `hidden`: modules and parameters in plain containers, with how many gradients came to them; `random`: calls in
      evaluation that drew random numbers; `growth`: by path, by how much the output of a recurrent layer grew from its
      first step to its last; `norms`: the norm of all gradients at each step of an optimizer;
    - `scored`: which output reached the loss as a probability, where that takes logits.
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
        """The module of a path, where the model was at hand."""
        return None if self.modules is None else self.modules.get(path)

    def below(self, path: str) -> dict[str, ParameterFacts]:
        """The facts on the parameters of a module and all in it, by name."""
        facts = self.parameters or {}
        return {name: each for name, each in facts.items() if is_below(each.path, path)}

    @property
    def backward_ran(self) -> bool:
        """Whether any gradient arrived at a parameter, or at what a module gave."""
        if any(facts.gradients for facts in (self.parameters or {}).values()):
            return True
        return any(info.grad is not None for call in self.run for info in call.outputs)

    @property
    def ended_early(self) -> bool:
        """Whether an error kept the model, or the steps around it, from coming to their end."""
        return self.error is not None or any(call.error and call.parent is None for call in self.run)


# How rules read a run


def is_below(path: str, above: str) -> bool:
    """Whether a path is `above`, or of a module in it."""
    return not above or path == above or path.startswith(f"{above}.")


def passes(run: Run) -> list[list[CallRecord]]:
    """The outermost calls, each with all that ran inside it, in the order in which they ended: children come before
    their parents."""
    inside: dict[int, list[CallRecord]] = {}
    top: dict[int, int] = {}
    for call in run.calls:  # a parent began before its children
        top[id(call)] = call.number if call.parent is None else top.get(id(call.parent), call.number)
        inside.setdefault(top[id(call)], []).append(call)
    return [sorted(calls, key=lambda call: (ended(call), -call.number)) for calls in inside.values()]


def ended(call: CallRecord) -> float:
    """When a call ended, in seconds from the run's start."""
    return call.began + call.seconds


def by_path(run: Run, keep: Callable[[CallRecord], bool]) -> dict[str, list[CallRecord]]:
    """The calls that ended well and are to be kept, by path."""
    found: dict[str, list[CallRecord]] = {}
    for call in run.calls:
        if call.error is None and keep(call):
            found.setdefault(call.path, []).append(call)
    return found


def by_place(run: Run, keep: Callable[[CallRecord], bool]) -> dict[tuple[str, ...], list[CallRecord]]:
    """The calls that ended well and are to be kept, by path and by the place in the model's code that calls it: the
    module around, and the one that was called before."""
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
    """The calls made from one call's code so far: what tells the places apart from which a shared module is called.

    >>> trail = Trail(outermost=False)
    >>> [trail.step(path) for path in ("norm1", "relu", "norm2", "relu", "relu")][1::2] + [trail.step("relu")]
    [('norm1', 0), ('norm2', 0), ('norm2', 2)]
    """

    outermost: bool
    after: str = ""
    last: str = ""
    again: int = 0

    def step(self, path: str) -> tuple[str, int]:
        """The module called before one, and how often this one was called since; not counted at the top, where a loop
        calls a module again for each batch."""
        if path == self.last:
            self.again += not self.outermost
        else:
            self.after, self.last, self.again = self.last, path, 0
        return self.after, self.again


def broken(info: TensorInfo) -> bool:
    """Whether a tensor is known to hold a NaN or an Inf."""
    stats = info.stats
    return stats is not None and bool(stats.nan or stats.inf)


def only_negative(info: TensorInfo) -> bool:
    """Whether all that is not finite is -Inf, as in a mask that is added to scores."""
    stats = info.stats
    return stats is not None and bool(stats.inf) and not stats.nan and stats.max < float("inf")


def floating(infos: list[TensorInfo]) -> list[TensorInfo]:
    """Those whose elements are real numbers."""
    return [info for info in infos if isinstance(info.dtype, torch.dtype) and info.dtype.is_floating_point]


def same(one: TensorInfo, other: TensorInfo) -> bool:
    """Whether two tensors have the same shape and the same statistics: as good as surely, the same elements."""
    if one.stats is None or one.shape != other.shape or one.dtype != other.dtype:
        return False
    return one.stats == other.stats and one.stats.nan == 0


def is_models_own(run: Run, path: str) -> bool:
    """Whether a module's first call gave what the model gave as its own."""
    call = next((call for call in run.calls if call.path == path and call.error is None), None)
    above = None if call is None else [*call.around()]
    if call is None or not above:
        return call is not None
    return any(same(info, own) for info in call.outputs for own in above[-1].outputs)


def starred(path: str) -> str:
    """A path with its numbers taken out, which layers that repeat have in common.

    >>> starred("encoder.layer.11.fc2")
    'encoder.layer.*.fc*'
    """
    return re.sub(r"\d+", "*", path)
