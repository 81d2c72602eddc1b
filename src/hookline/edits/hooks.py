"""The hooks of an edit: how it changes a call, and how it is removed."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor
from torch.nn import TransformerEncoderLayer

from hookline.edits.calls import Counted, When
from hookline.edits.edit import Edit, Spot
from hookline.edits.generation import generation_step
from hookline.edits.places import index_in
from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import Handle, HookFunction, make_hooks, together
from hookline.errors import EditError
from hookline.model.keypath import as_arguments, named, part_at, pick, with_part
from hookline.model.paths import outermost
from hookline.model.select import Selection
from hookline.model.tensors import tensors

Change: TypeAlias = Edit | Callable[[Tensor], Tensor] | list[Any]
"""A change to a tensor: an edit, a function of the tensor, or a list of these, applied one after another."""
Skip: TypeAlias = bool | Callable[[Call], Any]
"""Whether to skip a module, or a function of the Call that returns the output to use instead."""


def edit_calls(
    selection: Selection,
    parts: dict[str, Edit],
    *,
    skip: Skip = False,
    key: Any = None,
    at: Any = None,
    when: When | generation_step | None = None,
    order: float = 0,
) -> Handle:
    """Add hooks that change these parts of the calls of the selected modules: all of them, or none."""
    numbered = when is not None or any(change.located for change in parts.values())
    count = Counted(when, selection.model) if numbered else None
    handles = [without_fast_path(selection)]
    if count is not None and count.steps is not None:
        handles.append(
            attach([("", selection.model)], make_hooks(before=count.steps.see, order=-math.inf, compiled="leave out"))
        )
    try:
        hooks = _hooks(parts, skip, key, at, count)
        for hook in hooks.values():
            hook.__qualname__ = _name(parts, skip)
        handles.append(
            attach(selection, make_hooks(order=order, compiled="trace" if count is None else "leave out", **hooks))
        )
    except BaseException:
        together(*handles).remove()
        raise
    return together(*handles)


def _hooks(parts: dict[str, Edit], skip: Skip, key: Any, at: Any, count: "Counted | None") -> dict[str, HookFunction]:
    """The hook functions, by phase, that change these parts of a call."""
    hooks = {PHASES[part]: _changing(part, change, key, at, count) for part, change in parts.items()}
    if count is not None or skip is not False:
        hooks["before"] = _beginning(count, hooks.get("before"), skip)
    return hooks


def _changing(part: str, change: Edit, key: Any, at: Any, count: "Counted | None") -> HookFunction:
    """The hook function that changes one part of a call."""
    get, put = ACCESS[part]
    straight = part == "output" and key is None and at is None and count is None
    new_of = change.change

    def hook(call: Call) -> None:
        value = get(call)
        if straight and type(value) is Tensor:
            call.output = new_of(value, NOWHERE)
            return
        number = 0 if count is None else count.chosen.get(call.origin())
        if number is None or (part in GRADIENTS and not any(True for _ in tensors(value))):
            return
        keys = pick(value, key, whose=f"the {part}")
        tensor = part_at(value, keys)
        spot = Spot(call.path, number, part, keys, index_in(tensor, at), tuple(tensor.shape))
        put(call, with_part(value, keys, _changed(change, tensor, spot)))

    return hook


def _changed(change: Edit, tensor: Tensor, spot: Spot) -> Tensor:
    """A tensor after an edit of all of it, or of the part that the spot picks."""
    if spot.at is None:
        return change.change(tensor, spot)
    try:
        part = tensor[spot.at]
    except IndexError as error:
        message = f"at={spot.at!r} does not index the {spot.part}, which is {[*tensor.shape]}: {error}"
        raise EditError(message) from None
    whole = tensor.clone()
    whole[spot.at] = change.change(part, spot)
    return whole


def _beginning(count: "Counted | None", change: HookFunction | None, skip: Skip) -> HookFunction:
    """The hook function that decides whether a call is edited, and then edits its input or skips the module."""

    def hook(call: Call) -> None:
        if count is not None and not count.begin(call):
            return
        if change is not None:
            change(call)
        if skip is True:
            call.instead = _given_back
        elif skip:
            call.instead = lambda module_call, *args, **kwargs: skip(call)

    return hook


def _name(parts: dict[str, Edit], skip: Skip) -> str:
    """An edit as errors name it."""
    shown = [f"{part}={change!r}" for part, change in parts.items()]
    if skip is not False:
        shown.append(f"skip={getattr(skip, '__qualname__', skip)}")
    return f"edit({', '.join(shown)})"


def without_fast_path(selection: Selection) -> Handle:
    """Make `nn.TransformerEncoderLayer` call the modules inside it.

    Its fused path does not call them unless one of them has a PyTorch forward hook, so one is added.
    """
    layers = outermost(selection.model, lambda module: isinstance(module, TransformerEncoderLayer))
    inside = {id(part) for layer in layers for part in layer.modules() if part is not layer}
    added = [module.register_forward_hook(_nothing) for _, module in selection if id(module) in inside]

    def undo() -> None:
        for handle in added:
            handle.remove()

    return Handle(undo)


def _nothing(module: Any, args: Any, output: Any) -> None:
    """A hook without effect: that it exists is enough."""


def _given_back(module_call: Any, *args: Any, **kwargs: Any) -> Any:
    """The replacement for a skipped module: returns its first argument, or else the only tensor in its arguments."""
    if args and isinstance(args[0], Tensor):
        return args[0]
    value = named(args, kwargs)
    return part_at(value, pick(value, whose="the input"))


def _put_input(call: Call, value: Any) -> None:
    call.args, call.kwargs = as_arguments(value)


def _put_output(call: Call, value: Any) -> None:
    call.output = value


def _put_grad_output(call: Call, value: Any) -> None:
    call.grad_output = value


def _put_grad_input(call: Call, value: Any) -> None:
    call.grad_input, call.grad_kwargs = as_arguments(value)


NOWHERE = Spot("", 0, "", ())  # for edits that do not use it
PHASES = {"input": "before", "output": "after", "grad_output": "backward_before", "grad_input": "backward"}
GRADIENTS = ("grad_output", "grad_input")
ACCESS: dict[str, tuple[Callable[[Call], Any], Callable[[Call, Any], None]]] = {
    "input": (lambda call: named(call.args, call.kwargs), _put_input),
    "output": (lambda call: call.output, _put_output),
    "grad_output": (lambda call: call.grad_output, _put_grad_output),
    "grad_input": (lambda call: named(call.grad_input, call.grad_kwargs), _put_grad_input),
}
