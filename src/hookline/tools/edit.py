"""edit: change what modules take, give, or get back as gradient, for a block or until the handle is removed."""

import ast
import functools
import inspect
import sys
import textwrap
from collections.abc import Collection
from contextlib import suppress
from typing import Any, SupportsIndex

from torch import Tensor
from torch.jit import ScriptModule
from torch.nn import GRUCell, Module, MultiheadAttention, RNNBase, RNNCell, RNNCellBase

from hookline.edits.calls import When
from hookline.edits.edit import as_edit
from hookline.edits.generation import generation_step
from hookline.edits.steps import Change, Skip, edit_calls
from hookline.engine.compiled import is_compile_wrapper, is_compiled
from hookline.engine.forwarding import original_class
from hookline.engine.hook import Handle
from hookline.errors import ArgumentError, ArgumentTypeError, EditError
from hookline.model.paths import outermost
from hookline.model.select import Selection, Where, select


def edit(
    model: Module,
    where: Where,
    *,
    input: Change | None = None,
    output: Change | None = None,
    grad_output: Change | None = None,
    grad_input: Change | None = None,
    skip: Skip = False,
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
    `on(..., backward=)`. In a compiled model inputs, outputs and `skip` are changed in its graph, but `when` and
    gradients are not. Raises ArgumentError for what is no edit; EditError for what a compiled model cannot do,
    and from the call, with a note that says where, for an edit that does not fit; SelectionError where `where` picks
    nothing.

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
        raise ArgumentError("nothing to change: give input=, output=, grad_output=, grad_input= or skip=")
    if not parts and not (key is None and at is None):
        raise ArgumentError("key= and at= pick a part of what is changed; with skip= alone there is none")
    if not isinstance(skip, bool) and not callable(skip):
        raise ArgumentTypeError(f"skip= is True or a function of the call, not {skip!r}")
    refuse_other_calls(when)
    selection = select(model, where)
    if when is not None or any(change.located or part.startswith("grad") for part, change in parts.items()):
        refuse_compiled(model, selection)
    if skip is True:
        refuse_tuples(selection)

    return edit_calls(selection, parts, skip=skip, key=key, at=at, when=when, order=order)


# What is refused


def refuse_other_calls(when: Any) -> None:
    """ArgumentError for a `when` that is none, or counts from the end, which nobody knows."""
    wanted: Any = when.steps if isinstance(when, generation_step) else when
    known = wanted is None or is_number(wanted) or isinstance(wanted, slice)
    known = known or (callable(wanted) and not isinstance(wanted, type))
    listed = isinstance(wanted, Collection) and not isinstance(wanted, str)
    if not known and not (listed and all(map(is_number, wanted))):
        raise ArgumentTypeError(
            f"when={when!r} picks no calls; it is a number, a slice or a collection of numbers, "
            "hookline.edits.generation_step(...), or a function of the Call"
        )
    bounds = (wanted.start, wanted.stop) if isinstance(wanted, slice) else wanted if listed else (wanted,)
    if any(is_number(bound) and bound < 0 for bound in bounds):
        raise ArgumentError(f"when={when!r} counts from the end, which is not known; the first call is 0")


def is_number(value: Any) -> bool:
    """Whether a value counts calls: a whole number, numpy's too, but no truth value."""
    return isinstance(value, SupportsIndex) and not isinstance(value, bool | Tensor)


def refuse_compiled(model: Module, selection: Selection) -> None:
    """EditError where a selected module is inside a compiled one: its calls are not counted, its gradients not
    reached."""
    if "torch._dynamo" not in sys.modules:
        return  # nothing was ever compiled
    inside = {id(part) for module in outermost(model, is_compiled) for part in [*module.modules()][1:]}
    for path, module in selection:
        if id(module) in inside or is_compile_wrapper(module):
            raise EditError(
                f"{path or 'the model'} is compiled by torch.compile: in its graph no edit counts calls, knows where "
                "it is at work, or reaches gradients; edit the model uncompiled"
            )


def refuse_tuples(selection: Selection) -> None:
    """EditError where a module gives a tuple, as far as its code tells: a tensor in its place would be taken apart."""
    for path, module in selection:
        if gives_tuple(module):
            raise EditError(
                f"{path or 'the model'} gives a tuple, and skip=True gives back one tensor; "
                "give skip= a function of the call, such as lambda call: (call.args[0], None)"
            )


def gives_tuple(module: Module) -> bool:
    """Whether the forward of a module says that it gives a tuple, or returns one that is written as such. A forward
    that is scripted or traced says so in its schema; of one that has no code, such as a builtin, nobody can tell."""
    kind = original_class(module)
    if isinstance(module, ScriptModule):
        with suppress(Exception):  # of a part of it that has no forward
            schema = module.forward.schema  # type: ignore[attr-defined]
            return len(schema.returns) != 1 or str(schema.returns[0].type).startswith("Tuple")
        return False
    forward = module.forward
    while isinstance(forward, functools.partial):
        forward = forward.func
    try:
        says = str(inspect.signature(forward).return_annotation).removeprefix("typing.").lower()
    except (TypeError, ValueError):
        says = ""
    if says.startswith("tuple") or issubclass(kind, RNNBase | RNNCellBase | MultiheadAttention):
        return not issubclass(kind, RNNCell | GRUCell)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(forward)))
    except (OSError, TypeError, SyntaxError):
        return False
    named = {
        name.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and is_tuple(node.value, set())
        for name in node.targets
        if isinstance(name, ast.Name)
    }
    return any(isinstance(node, ast.Return) and is_tuple(node.value, named) for node in ast.walk(tree))


def is_tuple(node: ast.expr | None, named: set[str]) -> bool:
    """Whether an expression is a tuple as it is written: one, a sum with one, or a name that such a value has."""
    if isinstance(node, ast.BinOp):
        return is_tuple(node.left, named) or is_tuple(node.right, named)
    return isinstance(node, ast.Tuple) or (isinstance(node, ast.Name) and node.id in named)
