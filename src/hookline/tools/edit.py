"""edit: change the inputs, outputs or gradients of modules, for a block or until the handle is removed."""

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
from hookline.edits.hooks import Change, Skip, edit_calls
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
    """Change the inputs, outputs or gradients of the selected modules, or skip them.

    Returns a handle, which is also a `with` block; removing it restores the model.

    - `input`, `output`, `grad_output`, `grad_input`: what to do with the module's input, output or their gradients: a
      function of the tensor, one of `hookline.edits`, or a list of these, applied one after another. The tensor itself
      stays as it is, a new one replaces it, and gradients flow through the change.
    - `skip`: True does not run the module and returns its input instead; a function returns what `function(call)`
      returns.
    - `key`: which tensor, if there are several: a name or an index in a tuple, dict or `ModelOutput`, or the index or
      name of an argument; a tuple of these leads deeper.
    - `at`: which part of the tensor: an index, or `hookline.edits.at(position=, head=, heads=, unit=)`. A boolean mask
      [examples, positions] is an index, and so is `(torch.arange(examples), positions)`, a position for each example.
    - `when`: which calls: the nth of each module since the edit was added (a number, a slice, a collection),
      `hookline.edits.generation_step(n)`, or a predicate of the `Call`, asked before the module runs.
    - `order`: the order among hooks, as in `on`.

    A call that activation checkpointing recomputes is changed like the call it repeats. Gradients are changed as in
    `on(..., backward=)`. In a compiled model inputs, outputs and `skip` work inside the graph; `when` and gradients do
    not.

    Raises ArgumentError for a wrong edit, EditError if a compiled model cannot be edited so, and SelectionError if
    `where` picks nothing. An edit that does not fit raises EditError from the call, with a note that says where.

    >>> import torch, hookline
    >>> from hookline import edits
    >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
    >>> x = torch.tensor([[1.0, -2.0, 3.0]])
    >>> with hookline.edit(model, "0", output=edits.scale(2.0), at=(slice(None), 2)):
    ...     model(x).tolist()
    [[1.0, 0.0, 6.0]]
    >>> with hookline.edit(model, "0", output=edits.zero(), at=torch.tensor([[True, False, True]])):
    ...     model(x).tolist()
    [[0.0, 0.0, 0.0]]
    >>> with hookline.edit(model, "0", output=edits.scale(5.0), at=(torch.arange(1), torch.tensor([2]))):
    ...     model(x).tolist()
    [[1.0, 0.0, 15.0]]
    >>> with hookline.edit(model, "1", skip=True):
    ...     model(x).tolist()
    [[1.0, -2.0, 3.0]]
    """
    changes = {"input": input, "output": output, "grad_output": grad_output, "grad_input": grad_input}
    parts = {part: as_edit(value) for part, value in changes.items() if value is not None}
    if not parts and skip is False:
        raise ArgumentError("nothing to change: give input=, output=, grad_output=, grad_input= or skip=")
    if not parts and not (key is None and at is None):
        raise ArgumentError("key= and at= pick a part of a changed tensor; skip= alone changes none")
    if not isinstance(skip, bool) and not callable(skip):
        raise ArgumentTypeError(f"skip must be True, False or a function of the call, not {skip!r}")
    refuse_other_calls(when)
    selection = select(model, where)
    if when is not None or any(change.located or part.startswith("grad") for part, change in parts.items()):
        refuse_compiled(model, selection)
    if skip is True:
        refuse_tuples(selection)

    return edit_calls(selection, parts, skip=skip, key=key, at=at, when=when, order=order)


# What is refused


def refuse_other_calls(when: Any) -> None:
    """Raise ArgumentError for a wrong `when`, and for one that counts from the end, which is not known in advance."""
    wanted: Any = when.steps if isinstance(when, generation_step) else when
    known = wanted is None or is_number(wanted) or isinstance(wanted, slice)
    known = known or (callable(wanted) and not isinstance(wanted, type))
    listed = isinstance(wanted, Collection) and not isinstance(wanted, str)
    if not known and not (listed and all(map(is_number, wanted))):
        raise ArgumentTypeError(
            "when must be a number, a slice or a collection of numbers, hookline.edits.generation_step(...) or a "
            f"function of the Call, not {when!r}"
        )
    bounds = (wanted.start, wanted.stop) if isinstance(wanted, slice) else wanted if listed else (wanted,)
    if any(is_number(bound) and bound < 0 for bound in bounds):
        raise ArgumentError(f"when must count from 0, the first call, not from the end, which is not known: {when!r}")


def is_number(value: Any) -> bool:
    """Whether a value counts calls: an integer, numpy's too, but not a bool."""
    return isinstance(value, SupportsIndex) and not isinstance(value, bool | Tensor)


def refuse_compiled(model: Module, selection: Selection) -> None:
    """Raise EditError for a selected module inside a compiled one, where calls are not counted and gradients not
    reached."""
    if "torch._dynamo" not in sys.modules:
        return  # nothing was ever compiled
    inside = {id(part) for module in outermost(model, is_compiled) for part in [*module.modules()][1:]}
    for path, module in selection:
        if id(module) in inside or is_compile_wrapper(module):
            raise EditError(
                f"{path or 'the model'} is compiled by torch.compile: inside its graph an edit cannot count calls, "
                "know which module it edits, or reach gradients; edit the model uncompiled"
            )


def refuse_tuples(selection: Selection) -> None:
    """Raise EditError for a module that returns a tuple, as far as its code tells: callers would unpack the tensor."""
    for path, module in selection:
        if gives_tuple(module):
            raise EditError(
                f"{path or 'the model'} returns a tuple, and skip=True returns one tensor; "
                "pass skip= a function of the call, such as lambda call: (call.args[0], None)"
            )


def gives_tuple(module: Module) -> bool:
    """Whether a module's forward returns a tuple, by its annotation or by what its code returns. A scripted or traced
    forward says so in its schema; a forward without code, such as a builtin, counts as returning no tuple."""
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
    """Whether an expression is written as a tuple: a literal, a sum with one, or a name that was assigned one."""
    if isinstance(node, ast.BinOp):
        return is_tuple(node.left, named) or is_tuple(node.right, named)
    return isinstance(node, ast.Tuple) or (isinstance(node, ast.Name) and node.id in named)
