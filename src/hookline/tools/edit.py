"""edit: change what modules take, give, or get back as gradient, for a block or until the handle is removed."""

import inspect
import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeAlias

from torch import Tensor
from torch.nn import Module

from hookline.edits.calls import Counted, When, generation_step
from hookline.edits.edit import Edit, Spot, as_edit
from hookline.edits.places import index_in
from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import Handle, Step, make_hooks, together
from hookline.errors import EditError
from hookline.model.pick import as_arguments, named, part_at, pick, with_part
from hookline.model.select import Selection, Where, select
from hookline.model.tensors import tensors

Change: TypeAlias = Edit | Callable[[Tensor], Tensor] | list[Any]


def edit(
    model: Module,
    where: Where,
    *,
    input: Change | None = None,
    output: Change | None = None,
    grad_output: Change | None = None,
    grad_input: Change | None = None,
    skip: bool | Callable[[Call], Any] = False,
    key: Any = None,
    at: Any = None,
    when: When | generation_step | None = None,
    order: float = 0,
) -> Handle:
    """Change the selected modules' calls; gives a handle, which is also a `with` block.

    `input`, `output`, `grad_output` and `grad_input` say what becomes of the tensor that a module takes or gives, or of
    its gradient: a function of the tensor, one of `hookline.edits`, or a list of these, done one after another. The
    tensor itself is left as it is, and a new one takes its place; gradients flow through the change.

    `skip=True` has the module not run at all and gives back its input as it is; `skip=function` gives back what
    `function(call)` does.

    - `key` picks the tensor where there are several: a name or a place in a tuple, dict or `ModelOutput`, or the place
      or name of an argument; a tuple of these leads deeper.
    - `at` picks a part of the tensor: an index of it, or `hookline.edits.at(position=, head=, heads=, unit=)`.
    - `when` picks the calls: the nth of each module since the edit was put on (a number, a slice, a collection),
      `hookline.edits.generation_step(n)`, or a predicate of the `Call`, asked before the module runs.
    - `order` is that of steps, as in `on`.

    Recomputed calls of activation checkpointing are changed as the calls that they repeat. Gradients are changed as in
    `on(..., backward=)`. Raises EditError for what is no edit, for a compiled model, whose calls nobody sees, and from
    the call, with a note that says where, for an edit that does not fit; SelectionError where `where` picks nothing.

    >>> import torch, hookline
    >>> from hookline import edits
    >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
    >>> x = torch.tensor([[1.0, -2.0, 3.0]])
    >>> with hookline.edit(model, "0", output=edits.scale(2.0), at=(slice(None), 2)):
    ...     model(x).tolist()
    [[1.0, 0.0, 6.0]]
    >>> with hookline.edit(model, "1", skip=True):
    ...     model(x).tolist()
    [[1.0, -2.0, 3.0]]
    """
    changes = {"input": input, "output": output, "grad_output": grad_output, "grad_input": grad_input}
    parts = {part: as_edit(value) for part, value in changes.items() if value is not None}
    if not parts and skip is False:
        raise EditError("nothing to change: give input=, output=, grad_output=, grad_input= or skip=")
    if not parts and not (key is None and at is None):
        raise EditError("key= and at= pick a part of what is changed; with skip= alone there is none")
    if not isinstance(skip, bool) and not callable(skip):
        raise EditError(f"skip= is True or a function of the call, not {skip!r}")
    refuse_negative(when)
    selection = select(model, where)
    refuse_compiled(model, selection)
    if skip is True:
        refuse_tuples(selection)

    numbered = when is not None or any(change.located for change in parts.values())
    count = Counted(when) if numbered else None
    handles = []
    if isinstance(when, generation_step) and count is not None:
        handles.append(attach([("", model)], make_hooks(before=count.steps.see, order=-math.inf)))
    try:
        handles.append(attach(selection, make_hooks(**_steps(parts, skip, key, at, count), order=order)))
    except BaseException:
        together(*handles).remove()
        raise
    return together(*handles)


# Steps


def _steps(
    parts: dict[str, Edit], skip: bool | Callable[[Call], Any], key: Any, at: Any, count: "Counted | None"
) -> dict[str, Step]:
    """The steps, by phase, that change these parts of a call."""
    steps = {PHASES[part]: _changing(part, change, key, at, count) for part, change in parts.items()}
    if count is not None or skip is not False:
        steps["before"] = _beginning(count, steps.get("before"), skip)
    return steps


def _changing(part: str, change: Edit, key: Any, at: Any, count: "Counted | None") -> Step:
    """The step that changes one part of a call."""
    get, put = ACCESS[part]
    straight = part == "output" and key is None and at is None and count is None
    new_of = change.change

    def step(call: Call) -> None:
        value = get(call)
        if straight and type(value) is Tensor:
            call.output = new_of(value, NOWHERE)
            return
        number = 0 if count is None else count.chosen.get(call.origin())
        if number is None or (part in GRADIENTS and not any(True for _ in tensors(value))):
            return
        keys = pick(value, key, whose=f"the {part}")
        tensor = part_at(value, keys)
        spot = Spot(call.path, number, part, keys, index_in(tensor, at))
        put(call, with_part(value, keys, _changed(change, tensor, spot)))

    step.__qualname__ = f"edit({part}={change!r})"
    return step


def _changed(change: Edit, tensor: Tensor, spot: Spot) -> Tensor:
    """What an edit makes of a tensor, or of the part of it that the spot says."""
    if spot.at is None:
        return change.change(tensor, spot)
    try:
        part = tensor[spot.at]
    except IndexError as error:
        raise EditError(f"at={spot.at!r} is no index of the {spot.part}, which is {[*tensor.shape]}: {error}") from None
    whole = tensor.clone()
    whole[spot.at] = change.change(part, spot)
    return whole


def _beginning(count: "Counted | None", change: Step | None, skip: bool | Callable[[Call], Any]) -> Step:
    """The step that decides whether a call is one of those to be changed, and begins with it."""

    def step(call: Call) -> None:
        if count is not None and not count.begin(call):
            return
        if change is not None:
            change(call)
        if skip is True:
            call.instead = _given_back
        elif skip:
            call.instead = lambda module_call, *args, **kwargs: skip(call)

    step.__qualname__ = getattr(change, "__qualname__", None) or f"edit(skip={getattr(skip, '__qualname__', skip)})"
    return step


def _given_back(module_call: Any, *args: Any, **kwargs: Any) -> Any:
    """A call that gives back what it was given."""
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


NOWHERE = Spot("", 0, "", ())  # for edits that do not ask
PHASES = {"input": "before", "output": "after", "grad_output": "backward_before", "grad_input": "backward"}
GRADIENTS = ("grad_output", "grad_input")
ACCESS: dict[str, tuple[Callable[[Call], Any], Callable[[Call, Any], None]]] = {
    "input": (lambda call: named(call.args, call.kwargs), _put_input),
    "output": (attrgetter("output"), _put_output),
    "grad_output": (attrgetter("grad_output"), _put_grad_output),
    "grad_input": (lambda call: named(call.grad_input, call.grad_kwargs), _put_grad_input),
}


# What is refused


def refuse_negative(when: Any) -> None:
    """EditError for a call counted from the end, which nobody knows."""
    wanted = when.steps if isinstance(when, generation_step) else when
    bounds = (wanted.start, wanted.stop) if isinstance(wanted, slice) else (wanted,)
    if any(isinstance(bound, int) and bound < 0 for bound in bounds):
        raise EditError(f"when={when!r} counts from the end, which is not known; the first call is 0")


def refuse_compiled(model: Module, selection: Selection) -> None:
    """EditError where a selected module is inside of a compiled one: no step sees its calls."""
    inside = {id(part) for module in model.modules() if is_compiled(module) for part in [*module.modules()][1:]}
    for path, module in selection:
        if id(module) in inside or type(module).__name__ == "OptimizedModule":
            raise EditError(f"{path or 'the model'} is compiled by torch.compile, which no edit reaches; edit it eager")


def is_compiled(module: Module) -> bool:
    """Whether a module runs compiled: what `torch.compile` gave, or after `module.compile()`."""
    return type(module).__name__ == "OptimizedModule" or module.__dict__.get("_compiled_call_impl") is not None


def refuse_tuples(selection: Selection) -> None:
    """EditError where a module says that it gives a tuple: a tensor in its place would be taken apart."""
    for path, module in selection:
        says = inspect.signature(type(module).forward).return_annotation
        if str(says).removeprefix("typing.").lower().startswith("tuple"):
            raise EditError(
                f"{path or 'the model'} gives {says}, and skip=True gives back one tensor; "
                "give skip= a function of the call, such as lambda call: (call.args[0], None)"
            )
