"""stop_after: end a forward as soon as the wanted modules have run."""

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
    """Ends the forward of one call of the model. No `except Exception` in the model's code catches it."""

    def __init__(self, outermost: Call) -> None:
        super().__init__("stop_after has all that it waits for")
        self.outermost = outermost


def stop_after(model: Module, where: Where) -> Handle:
    """End each forward once every selected module has been called; the model then returns their outputs by path.

    Returns a handle, which is also a `with` block. Inside it the model returns `{path: output}`. Modules after the last
    selected one do not run, so reading the third layer of forty costs three layers.

    If a module is called several times, its first output counts. Gradients flow through the outputs as usual. The calls
    around the last one end by an exception, which their `always` hooks and a watch see. If the model calls itself, the
    outermost call ends.

    Raises SelectionError if `where` picks nothing, and EditError from a forward that ends without a call of one of the
    modules.

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
    """Call the model until all wanted modules have run, and return their outputs in the model's order."""
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
            f"the forward ended without a call of {', '.join(missing)}: it was not called, or another stop_after ended "
            "the forward"
        )
    return {path: found[path] for path in wanted}
