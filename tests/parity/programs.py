"""Hook programs: registrations, removals, mutations and calls, run the same way on PyTorch's call and on each height of ours."""

import itertools
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.modules.module as torch_module
from hypothesis import strategies as st
from torch import nn

import hookline

TREE = {"root": ("left", "right", "left"), "left": ("leaf",), "right": (), "leaf": ()}
NAMES = tuple(TREE)
FORWARD_DICTS = ("_forward_pre_hooks", "_forward_hooks")
FLAG_DICTS = ("_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")
DOINGS = ("see", "see", "see", "replace", "wrap", "raise", "interrupt", "remove", "add", "misreturn")


@dataclass(frozen=True)
class Register:
    where: str | None
    phase: str
    doing: str
    target: int
    with_kwargs: bool
    prepend: bool
    always_call: bool


@dataclass(frozen=True)
class Remove:
    handle: int


@dataclass(frozen=True)
class Mutate:
    where: str
    name: str
    how: str
    key: int
    doing: str


@dataclass(frozen=True)
class Call:
    where: str
    fails_in: str | None
    by_name: bool


@dataclass
class Machine:
    """One engine's modules, handles and what happened so far."""

    modules: dict[str, nn.Module]
    handles: list[Any] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    stash: dict[tuple[str, str], Any] = field(default_factory=dict)

    def hook(self, label: str, phase: str, doing: str, target: int) -> Callable[..., Any]:
        times = itertools.count()

        def hook(module: nn.Module, *given: Any) -> Any:
            self.events.append((label, module.name, repr(given)))
            late = doing in ("remove", "add") and next(times) != target // 3  # once, and not always in the first call
            return None if late else self.do(doing, phase, module, given, target)

        return hook

    def do(self, doing: str, phase: str, module: nn.Module, given: tuple[Any, ...], target: int) -> Any:
        if doing == "raise":
            raise ValueError(f"hook of {module.name}")
        if doing == "interrupt":
            raise KeyboardInterrupt(f"hook of {module.name}")
        if doing == "remove" and self.handles:
            self.handles[target % len(self.handles)].remove()
        if doing == "add":
            other = self.modules[NAMES[target % len(NAMES)]]
            self.handles.append(other.register_forward_hook(self.hook("added", "after", "see", 0)))
        if doing == "misreturn":
            return (1, 2, 3) if phase == "before" else ()
        if doing == "wrap":
            return given[0][0] + 10 if phase == "before" and given[0] else None
        if doing == "replace":
            return self.replacement(phase, given)
        return None

    def replacement(self, phase: str, given: tuple[Any, ...]) -> Any:
        if phase == "after":
            return (given[-1] if isinstance(given[-1], int) else 0) + 1000
        args = tuple(value + 100 if isinstance(value, int) else value for value in given[0])
        return args if len(given) == 1 else (args, {**given[1], "scale": 3})


def make_node(base: type[nn.Module]) -> type[nn.Module]:
    """A module class on `base` that calls its children in turn, and raises where it is told to."""

    class Node(base):
        def __init__(self, name: str, machine: Machine, children: tuple[nn.Module, ...]) -> None:
            super().__init__()
            self.name = name
            self.machine = machine
            self.parts = nn.ModuleList(children)

        def forward(self, x: Any = 0, *, scale: int = 1, fails_in: str | None = None) -> Any:
            self.machine.events.append(("forward", self.name, repr((x, scale))))
            if fails_in == self.name:
                raise RuntimeError(f"forward of {self.name}")
            for part in self.parts:
                x = part(x, fails_in=fails_in)
            return x * scale if isinstance(x, int) else x

    return Node


def build(base: type[nn.Module]) -> Machine:
    machine = Machine({})
    node = make_node(base)
    for name in reversed(NAMES):
        machine.modules[name] = node(name, machine, tuple(machine.modules[child] for child in TREE[name]))
    return machine


@contextmanager
def pytorch(build: Any) -> Iterator[Any]:
    yield build(nn.Module)


@contextmanager
def one_class(build: Any) -> Iterator[Any]:
    yield build(hookline.Module)


@contextmanager
def the_process(build: Any) -> Iterator[Any]:
    with hookline.install():
        yield build(nn.Module)


@contextmanager
def the_process_later(build: Any) -> Iterator[Any]:
    machine = build(nn.Module)
    with hookline.install():
        yield machine


@contextmanager
def instances(build: Any) -> Iterator[Any]:
    machine = build(nn.Module)
    nothing = lambda call: None
    with hookline.on(machine.modules["root"], "**", before=nothing, after=nothing, always=nothing):
        yield machine


@contextmanager
def everywhere(build: Any) -> Iterator[Any]:
    with hookline.everywhere(before=lambda call: None):
        yield build(nn.Module)


ENGINES = {engine.__name__: engine for engine in (one_class, the_process, the_process_later, instances, everywhere)}


def run_program(engine: Callable[[Any], Any], program: list[Any]) -> list[Any]:
    """Everything that could be seen of the program: hooks, forwards, outputs, exceptions, warnings."""
    with engine(build) as machine, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            for step in program:
                perform(machine, step)
        finally:
            for handle in machine.handles:
                handle.remove()
            torch_module._global_forward_hooks_with_kwargs.clear()
    return [*machine.events, [(warning.category, str(warning.message)) for warning in warned]]


def perform(machine: Machine, step: Any) -> None:
    if isinstance(step, Register):
        machine.handles.append(register(machine, step))
    elif isinstance(step, Remove):
        if machine.handles:
            machine.handles[step.handle % len(machine.handles)].remove()
    elif isinstance(step, Mutate):
        mutate(machine, step)
    else:
        call(machine, step)


def register(machine: Machine, step: Register) -> Any:
    label = f"{step.where}:{step.phase}:{step.doing}"
    hook = machine.hook(label, step.phase, step.doing, step.target)
    if step.where is None:
        if step.phase == "before":
            return torch_module.register_module_forward_pre_hook(hook)
        return torch_module.register_module_forward_hook(
            hook, with_kwargs=step.with_kwargs, always_call=step.always_call
        )
    module = machine.modules[step.where]
    if step.phase == "before":
        return module.register_forward_pre_hook(hook, with_kwargs=step.with_kwargs, prepend=step.prepend)
    return module.register_forward_hook(
        hook, with_kwargs=step.with_kwargs, prepend=step.prepend, always_call=step.always_call
    )


def mutate(machine: Machine, step: Mutate) -> None:
    """Change a hook dict as people do, without PyTorch's API."""
    module = machine.modules[step.where]
    hooks = getattr(module, step.name)
    phase = "before" if "pre" in step.name else "after"
    if step.how == "set":
        hooks[step.key] = machine.hook(f"set {step.key}", phase, step.doing, 0)
    elif step.how == "flag":
        for name in FLAG_DICTS:
            if hooks and name.startswith(step.name.removesuffix("s")):
                getattr(module, name)[next(iter(hooks))] = True
    elif step.how == "clear":
        hooks.clear()
    elif step.how == "pop" and hooks:
        hooks.popitem()
    elif step.how == "move" and hooks:
        hooks.move_to_end(next(iter(hooks)))
    elif step.how == "new":
        setattr(module, step.name, OrderedDict({step.key: machine.hook("new", phase, step.doing, 0)}))
    elif step.how == "stash":
        machine.stash[step.where, step.name] = hooks
        setattr(module, step.name, OrderedDict())
    elif step.how == "restore" and (step.where, step.name) in machine.stash:
        setattr(module, step.name, machine.stash[step.where, step.name])
    elif step.how == "update stash" and (step.where, step.name) in machine.stash:
        machine.stash[step.where, step.name][step.key] = machine.hook("stashed", phase, step.doing, 0)
    elif step.how == "share":
        setattr(module, step.name, getattr(machine.modules["right"], step.name))


def call(machine: Machine, step: Call) -> None:
    kwargs = {"fails_in": step.fails_in} if step.fails_in else {}
    try:
        output = (
            machine.modules[step.where](x=1, **kwargs) if step.by_name else machine.modules[step.where](1, **kwargs)
        )
        machine.events.append(("output", repr(output)))
    except (Exception, KeyboardInterrupt) as error:
        machine.events.append(("error", type(error), str(error)))


where = st.sampled_from(NAMES)
phase = st.sampled_from(("before", "after"))
doing = st.sampled_from(DOINGS)
small = st.integers(0, 8)
registers = st.builds(Register, st.none() | where, phase, doing, small, st.booleans(), st.booleans(), st.booleans())
mutations = st.builds(
    Mutate,
    where,
    st.sampled_from(FORWARD_DICTS),
    st.sampled_from(("set", "flag", "clear", "pop", "move", "new", "stash", "restore", "update stash", "share")),
    small,
    doing,
)
calls = st.builds(Call, where, st.none() | st.none() | where, st.booleans())
programs = st.lists(
    st.one_of(registers, registers, st.builds(Remove, small), mutations, calls, calls), max_size=14
).map(lambda steps: [*steps, Call("root", None, True), Call("root", None, False), Call("root", "leaf", False)])

assert torch  # the modules of a program hold no tensors: what counts is who is called, when, and with what
