"""recording(selection): a run that fills while modules are called. What every tool that records stands on."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

from hookline.engine.attach import attach
from hookline.engine.hook import Hook, together
from hookline.engine.methods import attach_methods, has_method, method_path
from hookline.errors import RecordError, SelectionError
from hookline.model.select import Selection
from hookline.model.sharded import rank_and_world
from hookline.record.keep import Keep, keeper, seen
from hookline.record.measure import Pending
from hookline.record.record import Run
from hookline.record.recorder import Recorder


def recording(
    selection: Selection,
    *,
    keep: Keep = "stats",
    inputs: Keep | None = None,
    grads: bool | Literal["input"] = False,
    methods: Sequence[str] = (),
) -> AbstractContextManager[Run]:
    """A `with` block in which every call of the selected modules is recorded, as `hookline.watch` says."""
    pending = Pending()
    output = keeper(keep, pending)
    if grads not in (True, False, "input"):
        raise RecordError(f"grads={grads!r} is not known; it is True, False or 'input'")
    given = None if inputs is None and keep == "tensor" and grads != "input" else keeper(inputs or "shape", pending)
    names = [methods] if isinstance(methods, str) else [*methods]
    settings = {"keep": _name(keep), "inputs": _name(inputs or "shape"), "grads": grads}
    rank, world_size = rank_and_world()
    run = Run(
        model=type(selection.model).__name__,
        modules=_modules(selection, names),
        aliases=selection.aliases,
        settings={**settings, "methods": names} if names else settings,
        rank=rank,
        world_size=world_size,
    )
    recorder = Recorder(
        run,
        selection,
        output=output,
        inputs=given,
        gradient=output if grads else None,
        input_gradients=grads == "input",
        sees_inputs=seen(inputs or "shape"),
        sees_outputs=seen(keep),
    )
    return _watching(selection, recorder, recorder.hooks(), names)


def _modules(selection: Selection, methods: Sequence[str]) -> dict[str, str]:
    """The class of each module by path, and of each of its methods that are watched."""
    found: dict[str, str] = {}
    missing = dict.fromkeys(methods)
    for path, module in selection:
        found[path] = type(module).__name__
        for name in methods:
            if has_method(module, name):
                found[method_path(path, name)] = found[path]
                missing.pop(name, None)
    if missing:
        name = next(iter(missing))
        raise SelectionError(f"none of the {len(selection)} selected modules has a method {name!r}")
    return found


@contextmanager
def _watching(
    selection: Selection, recorder: Recorder, hooks: tuple[Hook, ...], methods: Sequence[str]
) -> Iterator[Run]:
    run = recorder.run
    handle = attach(selection, hooks)
    if methods:
        try:
            handle = together(handle, attach_methods(selection, methods, hooks))
        except BaseException:
            handle.remove()
            raise
    del selection  # which would keep modules that are deleted from the model meanwhile
    try:
        yield run
    finally:
        handle.remove()
        if run.rank is None:  # the processes may have found each other meanwhile
            run.rank, run.world_size = rank_and_world()
        recorder.close()


def _name(keep: Any) -> str:
    return keep if isinstance(keep, str) else getattr(keep, "__qualname__", type(keep).__name__)
