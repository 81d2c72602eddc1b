"""Gauges: what is measured in a step, row by row, until one all-reduce and one copy to the host at its end."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import Handle, make_hooks
from hookline.engine.tensor_hooks import on_gradient
from hookline.messages import function_name
from hookline.model.select import Selection
from hookline.model.sharded import local_part, part_of, rank_and_world
from hookline.model.tensors import tensors
from hookline.monitoring.sums import COLUMNS, sums_of
from hookline.record.keep import version_of

Place: TypeAlias = tuple[str, str]
"""What a row is of: a path and "output" or "grad", or the name of a parameter and "weight", "weight_grad", "update" or
"state.NAME"."""
OF_CALLS = ("output", "grad")
OF_WEIGHTS = ("weight", "weight_grad", "update", "state")
OF = (*OF_CALLS, *OF_WEIGHTS)


@dataclass(slots=True)
class Gauges:
    """The rows of one step.

    - `of`: what is measured, some of OF; `columns`: the sums that the figures need;
    - `functions`: a user's figures, each of which gives a number for a tensor;
    - `places`: the row of each place, which stays for the whole run; it grows when an optimizer makes its state;
    - `order`: in which order places were measured in the last step;
    - `matrices`: the names of parameters with two dimensions or more. Only of these a ratio of update and weight says
      much: vectors often begin at 0.
    """

    selection: Selection
    of: Sequence[str]
    columns: Collection[str]
    together: bool = True
    functions: Sequence[Callable[[Tensor], Any]] = ()
    places: dict[Place, int] = field(default_factory=dict)
    found: list[tuple[int, float, Tensor]] = field(default_factory=list)
    parameters: dict[int, str] = field(default_factory=dict)
    before: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)
    measuring: bool = False
    in_graph: bool = False
    last: tuple[Any, Any] = (None, None)
    order: dict[Place, int] = field(default_factory=dict)
    matrices: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        kinds = [kind for kind in OF_CALLS if kind in self.of]
        for path, _ in self.selection:
            for kind in kinds:
                self._place(path, kind)
        for name, parameter in parameters_of(self.selection):
            self.parameters[id(parameter)] = name
            if parameter.dim() > 1:
                self.matrices.add(name)
            for kind in ("weight", "weight_grad", "update"):
                if kind in self.of:
                    self._place(name, kind)

    def _place(self, path: str, kind: str) -> int:
        return self.places.setdefault((path, kind), len(self.places))

    # Calls

    @property
    def needs_calls(self) -> bool:
        """Whether hooks are needed at all."""
        return any(kind in self.of for kind in OF_CALLS)

    def attach(self) -> Handle:
        """Add the hooks that measure outputs and their gradients."""
        (see,) = make_hooks(always=self.see, order=math.inf, compiled="callback")
        see.sees_gradients = "grad" in self.of
        return attach(self.selection, (see,))

    def see(self, call: Call) -> None:
        """Measure the output of a call in training."""
        if call._shown is not None:
            self.in_graph = True
        if not self.measuring or call.error is not None or not torch.is_grad_enabled() or call.recompute:
            return
        tensor = next((tensor for _, tensor in tensors(call.output) if tensor.is_floating_point()), None)
        if tensor is None:
            return
        path = call.path
        if "output" in self.of and (path, "output") in self.places:
            self._add(self.places[path, "output"], tensor, copies_of_output(tensor))
        if "grad" in self.of and (path, "grad") in self.places and tensor.requires_grad:
            see = partial(self._see_gradient, self.places[path, "grad"])
            if call._shown is not None:
                call._shown.on_gradient(tensor, see)
            elif not tensor.is_leaf:
                on_gradient(tensor, see)

    def _see_gradient(self, row: int, gradient: Tensor | None, shown: Any = None) -> None:
        if gradient is not None and self.measuring:
            self._add(row, gradient, copies_of_output(gradient))

    # Weights

    def before_update(self, optimizer: Optimizer) -> None:
        """Measure the gradients and weights that an optimizer is about to use, and keep copies of the weights."""
        for name, parameter in self._own(optimizer):
            copies = copies_of_parameter(parameter) if self.together else 1.0
            if "weight_grad" in self.of and parameter.grad is not None:
                self._add(self.places[name, "weight_grad"], parameter.grad, copies)
            if "weight" in self.of:
                self._add(self.places[name, "weight"], parameter, copies)
            if "update" in self.of:
                self.before.append((name, parameter, local_part(parameter.detach()).clone()))

    def after_update(self, optimizer: Optimizer) -> None:
        """Measure by how much the weights changed, and the optimizer's state."""
        before, self.before = self.before, []
        for name, parameter, old in before:
            copies = copies_of_parameter(parameter) if self.together else 1.0
            self._add(self.places[name, "update"], local_part(parameter.detach()), copies, old)
        if "state" not in self.of:
            return
        for name, parameter in self._own(optimizer):
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor) and value.numel() > 1:
                    copies = copies_of_parameter(parameter) if self.together else 1.0
                    self._add(self._place(name, f"state.{key}"), value, copies)

    def _own(self, optimizer: Optimizer) -> Iterator[tuple[str, Tensor]]:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                name = self.parameters.get(id(parameter))
                if name is not None:
                    yield name, parameter

    # The end of a step

    def _add(self, row: int, tensor: Tensor, copies: float, less: Tensor | None = None) -> None:
        """Measure a tensor. One that comes again unchanged, as a container's output, is measured once."""
        version, (last, sums) = version_of(tensor), self.last
        if less is None and last is not None and last[0] is tensor and last[1] == version is not None:
            self.found.append((row, copies, sums))
            return
        sums = sums_of(tensor, less, columns=self.columns)
        if sums is not None and self.functions:
            sums = torch.cat([sums[:-1], self._own_figures(tensor, less, sums), sums[-1:]])
        if sums is not None:
            self.found.append((row, copies, sums))
            self.last = (tensor, version), sums

    def _own_figures(self, tensor: Tensor, less: Tensor | None, like: Tensor) -> Tensor:
        """1 for the tensor, and what each function of the user gives for it."""
        with torch.no_grad():
            given = local_part(tensor).detach()
            given = given if less is None else given - less
            values = [torch.as_tensor(function(given), device=like.device) for function in self.functions]
        return torch.stack([like.new_ones(()), *(value.to(like.dtype).reshape(()) for value in values)])

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of a table: COLUMNS, and before the last one how many tensors the user's functions saw, and the
        sum of what each gave."""
        more = ("tensors", *map(function_name, self.functions)) if self.functions else ()
        return (*COLUMNS[:-1], *more, COLUMNS[-1])

    def table(self) -> Tensor:
        """The sums of this step in this process: [places, columns], on the device; rows of nothing are zeros."""
        found, self.found, self.last = self.found, [], (None, None)
        names = [*self.places]
        self.order = {}
        for place, (row, _, _) in enumerate(found):
            self.order.setdefault(names[row], place)
        device = found[0][2].device if found else torch.device("cpu")
        wide = found[0][2].dtype if found else torch.float64
        table = torch.zeros(len(self.places), len(self.names), dtype=wide, device=device)
        if not found:
            return table
        rows = torch.stack([sums.to(device, wide) for _, _, sums in found])
        places = torch.tensor([row for row, _, _ in found], device=device)
        share = torch.tensor([1 / copies for _, copies, _ in found], dtype=wide, device=device)
        table[:, :-1].index_add_(0, places, rows[:, :-1] * share[:, None])
        table[:, -1].scatter_reduce_(0, places, rows[:, -1], "amax")
        return table


def parameters_of(selection: Selection) -> Iterator[tuple[str, Tensor]]:
    """The parameters of the selected modules themselves by name, each once."""
    seen: set[int] = set()
    for path, module in selection:
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{path}.{name}" if path else name, parameter


def copies_of_output(tensor: Tensor) -> float:
    """How many processes hold the same part of an activation; a plain one belongs to its process."""
    part = part_of(tensor)
    return 1.0 if part is None else replicas(part.placement, part.mesh)


def copies_of_parameter(parameter: Tensor) -> float:
    """How many processes hold the same part of a parameter: all, of one that is not sharded."""
    _, world = rank_and_world()
    part = part_of(parameter)
    if world is None:
        return 1.0
    if part is None:
        return float(world)
    return replicas(part.placement, part.mesh) * world / math.prod(part.mesh)


def replicas(placement: Sequence[str], mesh: Sequence[int]) -> float:
    """How many processes of a mesh hold the same part."""
    return float(math.prod(size for kind, size in zip(placement, mesh, strict=True) if not kind.startswith("Shard")))


def merged(table: Tensor) -> Tensor:
    """The sums of all processes on the host: one all-reduce, one copy. For the largest of all each process has a column
    of its own, in which the others have 0."""
    rank, world = rank_and_world()
    if rank is None or world is None or world == 1:
        return table.cpu().double()
    added = table.shape[1] - 1
    whole = table.new_zeros(len(table), added + world)
    whole[:, :added] = table[:, :-1]
    whole[:, added + rank] = table[:, -1]
    torch.distributed.all_reduce(whole)
    host = whole.cpu().double()
    return torch.cat([host[:, :added], host[:, added:].amax(1, keepdim=True)], 1)
