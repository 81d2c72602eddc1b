"""Programs of backward hooks: registrations, removals, forwards and backward passes, run the same way on PyTorch's call and on ours."""

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.modules.module as torch_module
from hypothesis import strategies as st
from torch import nn

from parity.programs import NAMES, TREE, Remove

KINDS = ("full", "full", "pre", "legacy", "forward", "forward_pre")
DOINGS = ("see", "see", "see", "scale", "none", "misreturn", "raise", "remove", "add")
SHAPES = ("tensor", "tensor", "tensor", "tuple", "dict", "pair", "scalar")


@dataclass(frozen=True)
class Register:
    where: str | None
    kind: str
    doing: str
    target: int
    prepend: bool


@dataclass(frozen=True)
class Flags:
    """Change a hook dict without PyTorch's API."""

    where: str
    name: str
    how: str


@dataclass(frozen=True)
class Call:
    where: str
    by_name: bool
    needs_gradient: bool
    enabled: bool


@dataclass(frozen=True)
class Backward:
    how: str
    watched: bool


@dataclass
class Machine:
    """One engine's modules, handles, what was computed last, and what happened so far."""

    modules: dict[str, nn.Module]
    handles: list[Any] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    output: Any = None
    x: Any = None

    def hook(self, label: str, kind: str, doing: str, target: int) -> Callable[..., Any]:
        times = itertools.count()

        def hook(module: nn.Module, *given: Any) -> Any:
            self.events.append((label, module.name, plain(given)))
            if doing in ("remove", "add") and next(times) != target // 3:
                return None
            return self.do(doing, kind, module, given, target)

        return hook

    def do(self, doing: str, kind: str, module: nn.Module, given: Any, target: int) -> Any:
        if doing == "raise":
            raise ValueError(f"hook of {module.name}")
        if doing == "remove" and self.handles:
            self.handles[target % len(self.handles)].remove()
        if doing == "add":
            other = self.modules[NAMES[target % len(NAMES)]]
            self.handles.append(other.register_full_backward_hook(self.hook("added", "full", "see", 0)))
        if doing == "misreturn":
            return ()
        if doing == "scale":
            return scaled(given[-1] if kind == "forward" else given[0])
        if doing == "none" and kind in ("full", "legacy", "pre"):
            return tuple(None for _ in given[0])
        return None


def scaled(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value * 2
    if isinstance(value, tuple):
        return tuple(scaled(part) for part in value)
    return value


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.requires_grad, value.detach().tolist())
    if isinstance(value, tuple | list):
        return type(value)(plain(part) for part in value)
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return value if isinstance(value, int | float | str | None) else type(value).__name__


def make_node(base: type[nn.Module]) -> type[nn.Module]:
    """A module class on `base` that calls its children in turn and gives what its shape says."""

    class Node(base):
        def __init__(self, name: str, shape: str, children: tuple[nn.Module, ...]) -> None:
            super().__init__()
            self.name = name
            self.shape = shape
            self.weight = nn.Parameter(torch.tensor([1.5, -0.5]))
            self.parts = nn.ModuleList(children)

        def forward(self, x: Any, *, scale: Any = 1) -> Any:
            for part in self.parts:
                x = first(part(x))
            y = (x * self.weight).tanh() * scale
            if self.shape == "tuple":
                return y, None, x + 1
            if self.shape == "dict":
                return {"number": 3, "y": y}
            if self.shape == "pair":
                return [y, y.exp()]
            return y.sum() if self.shape == "scalar" and not self.parts else y

    return Node


def first(value: Any) -> Any:
    if isinstance(value, dict):
        return value["y"]
    return value if isinstance(value, torch.Tensor) else value[0]


def build(shapes: tuple[str, ...], base: type[nn.Module]) -> Machine:
    machine = Machine({})
    node = make_node(base)
    for name, shape in zip(reversed(NAMES), shapes, strict=True):
        machine.modules[name] = node(name, shape, tuple(machine.modules[child] for child in TREE[name]))
    return machine


def run_program(engine: Callable[[Any], Any], shapes: Any, program: list[Any]) -> list[Any]:
    """Everything that could be seen of the program: hooks, outputs, gradients, exceptions, warnings."""
    with engine(partial(build, shapes)) as machine, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            for step in program:
                perform(machine, step)
        finally:
            for handle in machine.handles:
                handle.remove()
            torch_module._global_is_full_backward_hook = None
    told = [(warning.category, str(warning.message)) for warning in warned]
    gradients = {name: plain(module.weight.grad) for name, module in machine.modules.items()}
    return [*machine.events, told, gradients]


def perform(machine: Machine, step: Any) -> None:
    try:
        if isinstance(step, Register):
            machine.handles.append(register(machine, step))
        elif isinstance(step, Remove):
            if machine.handles:
                machine.handles[step.handle % len(machine.handles)].remove()
        elif isinstance(step, Flags):
            change(machine, step)
        elif isinstance(step, Call):
            call(machine, step)
        else:
            backward(machine, step)
    except Exception as error:
        machine.events.append(("error", type(error), str(error)))


def register(machine: Machine, step: Register) -> Any:
    hook = machine.hook(f"{step.where}:{step.kind}:{step.doing}", step.kind, step.doing, step.target)
    if step.where is None:
        return {
            "full": torch_module.register_module_full_backward_hook,
            "pre": torch_module.register_module_full_backward_pre_hook,
            "legacy": torch_module.register_module_backward_hook,
            "forward": torch_module.register_module_forward_hook,
            "forward_pre": torch_module.register_module_forward_pre_hook,
        }[step.kind](hook)
    module = machine.modules[step.where]
    if step.kind == "legacy":
        return module.register_backward_hook(hook)
    if step.kind == "full":
        return module.register_full_backward_hook(hook, prepend=step.prepend)
    if step.kind == "pre":
        return module.register_full_backward_pre_hook(hook, prepend=step.prepend)
    if step.kind == "forward":
        return module.register_forward_hook(hook, prepend=step.prepend, always_call=step.target % 2 == 0)
    return module.register_forward_pre_hook(hook, prepend=step.prepend)


def change(machine: Machine, step: Flags) -> None:
    module = machine.modules[step.where]
    hooks = getattr(module, step.name)
    if step.how == "clear":
        hooks.clear()
    elif step.how == "new":
        setattr(module, step.name, type(hooks)() if type(hooks) is dict else {})
    elif step.how == "set":
        kind = "pre" if "pre" in step.name else "full"
        hooks[99] = machine.hook(f"set {step.name}", kind, "see", 0)
    elif step.how == "unmark":
        module._is_full_backward_hook = None


def call(machine: Machine, step: Call) -> None:
    machine.x = torch.tensor([0.25, 0.75], requires_grad=step.needs_gradient)
    x = machine.x * 2 if step.by_name else machine.x
    with torch.set_grad_enabled(step.enabled):
        module = machine.modules[step.where]
        machine.output = None
        machine.output = module(x, scale=torch.tensor(2.0)) if step.by_name else module(x)
    machine.events.append(("output", plain(machine.output)))


def backward(machine: Machine, step: Backward) -> None:
    if machine.output is None:
        return
    tensor = first(machine.output)
    if step.watched:
        tensors = [tensor for tensor in (tensor, machine.x) if tensor.requires_grad]
        torch.autograd.graph.register_multi_grad_hook(
            tensors, lambda gradients: machine.events.append(("multi", plain(tuple(gradients))))
        )
    loss = tensor.sum()
    if step.how == "backward":
        loss.backward()
    elif step.how == "twice":
        loss.backward(retain_graph=True)
        loss.backward()
    elif step.how == "all":
        parts = machine.output.values() if isinstance(machine.output, dict) else machine.output
        sum(part.sum() for part in parts if isinstance(part, torch.Tensor) and part.requires_grad).backward()
    elif step.how == "grad of weight":
        weight = machine.modules["leaf"].weight
        machine.events.append(("grad", plain(torch.autograd.grad(loss, [weight], allow_unused=True))))
    else:
        (gradient,) = torch.autograd.grad(loss, [machine.x], create_graph=True)
        gradient.square().sum().backward()
        machine.events.append(("second", plain(machine.x.grad)))


where = st.sampled_from(NAMES)
small = st.integers(0, 8)
registers = st.builds(
    Register,
    st.sampled_from((None, *NAMES, *NAMES)),
    st.sampled_from(KINDS),
    st.sampled_from(DOINGS),
    small,
    st.booleans(),
)
changes = st.builds(
    Flags,
    where,
    st.sampled_from(("_backward_hooks", "_backward_pre_hooks", "_forward_hooks")),
    st.sampled_from(("clear", "new", "set", "unmark")),
)
calls = st.builds(Call, where, st.booleans(), st.booleans(), st.sampled_from((True, True, True, False)))
backwards = st.builds(
    Backward, st.sampled_from(("backward", "backward", "twice", "all", "grad of weight", "double")), st.booleans()
)
programs = st.lists(
    st.one_of(registers, registers, st.builds(Remove, small), changes, calls, backwards), max_size=12
).map(
    lambda steps: [
        *steps,
        Call("root", False, True, True),
        Backward("backward", False),
        *[Call("left", False, True, True)] * 2,
    ]
)
shapes = st.tuples(*[st.sampled_from(SHAPES)] * 4)
