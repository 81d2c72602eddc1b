"""stop_after: a forward that ends as soon as what is wanted of it is there."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch.nn import Module

from hookline.engine.attach import attach
from hookline.engine.call import Call
from hookline.engine.hook import Handle, make_hooks, together
from hookline.errors import ArgumentError, EditError
from hookline.model.select import Where, select

FIRST, LAST = float("-inf"), float("inf")


class Stopped(BaseException):
    """Ends the forward of one call of the model. No `except Exception` of the model's own catches it."""

    def __init__(self, outermost: Call) -> None:
        super().__init__("stop_after has all that it waits for")
        self.outermost = outermost


def stop_after(model: Module, where: Where) -> Handle:
    """End each forward of the model once every selected module has been called; the model then gives back what these
    gave, by path: `{path: output}`. Gives a handle, which is also a `with` block. Of a forward that calls the model
    itself again it is the outermost call that ends.

    Modules after the last of them do not run, so that reading the third layer of forty costs three. Of a module that
    is called several times it is the first output. Gradients flow through the outputs as ever. The calls around the
    last one end by an exception, as their `always` hooks and a watch see.

    Raises SelectionError where `where` picks nothing, and EditError from a forward that ends without having called one
    of the modules.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> with hookline.stop_after(model, "1"):
    ...     found = model(torch.ones(1, 2))
    >>> found["1"].shape
    torch.Size([1, 3])
    """
    selection = select(model, where)
    if "" in selection:
        raise ArgumentError("stop_after needs modules inside the model; the model itself ends by itself")
    waiting: dict[Call, dict[str, Any]] = {}  # what each running call of the model has found so far

    def begin(call: Call) -> None:
        if call.nearest(waiting) is not None:
            return  # the model calls itself
        call.instead = partial(_until_stopped, call, waiting, selection.paths, call.instead)

    def see(call: Call) -> None:
        outermost = call.nearest(waiting)
        if outermost is not None:
            found = waiting[outermost]
            found.setdefault(call.path, call.output)
            if len(found) == len(selection):
                raise Stopped(outermost)

    around = attach([("", model)], make_hooks(before=begin, order=LAST, compiled="leave out"))
    try:
        inside = attach(selection, make_hooks(ended=see, order=LAST, compiled="leave out"))
    except BaseException:
        around.remove()
        raise
    return together(inside, around)


def _until_stopped(
    call: Call,
    waiting: dict[Call, dict[str, Any]],
    wanted: list[str],
    instead: Callable[..., Any] | None,
    module_call: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> dict[str, Any]:
    """One call of the model, as far as it is needed: what the modules gave, in the model's order."""
    found = waiting[call] = {}
    try:
        module_call(*args, **kwargs) if instead is None else instead(module_call, *args, **kwargs)
    except Stopped as stopped:
        if stopped.outermost is not call:
            raise
    finally:
        del waiting[call]
    missing = [path for path in wanted if path not in found]
    if missing:
        raise EditError(
            f"the forward ended without a call of {', '.join(missing)}; it never came, or another stop_after was first"
        )
    return {path: found[path] for path in wanted}
