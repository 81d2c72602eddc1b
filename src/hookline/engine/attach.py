"""Attach the engine to one instance, to a class or to the whole process, and detach it."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

from torch.nn import Module as TorchModule

from hookline.engine.compile_start import attached as ever_attached
from hookline.engine.compile_start import is_known_to_graphs, prepare_for_tracing
from hookline.engine.forwarding import original_class
from hookline.engine.global_hooks import notice_changes, stop_noticing_changes
from hookline.engine.graph_calls import graph_calls
from hookline.engine.hook import Handle, Hook, HookFunction, make_hooks
from hookline.engine.hook_dicts import HOOK_DICTS, SLOTS, drop_every_plan
from hookline.engine.plan import Plan, decide
from hookline.engine.scope import Block, enter, leave, scoped_call
from hookline.engine.site import (
    PYTORCHS_CALL,
    SITE,
    SLOT,
    Kind,
    Site,
    close,
    hooks_lock,
    no_call_half_way,
    put_in_slot,
    site_of,
)
from hookline.engine.stand_in import swap, swap_back
from hookline.engine.torch_hooks import call
from hookline.engine.traced import graphs
from hookline.errors import AttachError
from hookline.model.paths import PathTable
from hookline.model.select import Selection, Where, select

# One instance


def attach(modules: Iterable[tuple[str, TorchModule]], hooks: tuple[Hook, ...]) -> Handle:
    """Add the hooks to all of these (path, module)s, or to none if one of them cannot be hooked; returns their undo."""
    attached: list[weakref.ref[TorchModule]] = []

    def undo() -> None:
        with hooks_lock:
            for hook in hooks:
                hook.active = False
            no_call_half_way()
            for reference in attached:
                module = reference()
                if module is not None:
                    _remove(module, hooks)

    try:
        with hooks_lock:
            model = modules.model if isinstance(modules, Selection) else None
            modules = [*modules]
            table = PathTable(modules, model)
            for hook in hooks:
                hook.paths = table
            plan = decide(hooks)
            kinds: dict[type[TorchModule], Kind] = {}
            known = is_known_to_graphs()
            prepare_for_tracing()
            for reference, (path, module) in zip(table.references, modules, strict=True):
                attached.append(reference)
                site = site_of(module)
                if site is None:
                    own = original_class(module)
                    kind = kinds.get(own) or kinds.setdefault(own, Kind(own))
                    _enter(module, Site(reference, kind, path, hooks, plan), kind.has_slot and not known(own))
                else:
                    _decide(module, site, (*site.hooks, *hooks))
            _remember(hooks, plan)
    except BaseException:
        undo()
        raise
    return Handle(undo)


def detach(module: TorchModule, hook: Hook) -> None:
    """Remove one hook from one module; without effect if the module does not have it."""
    with hooks_lock:
        no_call_half_way()
        _remove(module, (hook,))


def _remember(hooks: tuple[Hook, ...], plan: Plan) -> None:
    """Remember the modules for when a graph is made: they get stand-ins and keys then, or at once if graphs exist
    already."""
    ever_attached.add(hooks[0])
    if plan.compiled.taps or plan.compiled.leaves_out:
        graph_calls.without_keys.add(hooks[0])
        if graphs.made:
            graph_calls.give_keys()


def _enter(module: TorchModule, site: Site, in_slot: bool) -> None:
    """Route the calls of a module to its new site: through its slot or, if that does not work, by a stand-in class."""
    module.__dict__.pop(SITE, None)  # of another module, whose `__dict__` was copied
    there = module.__dict__.get(SLOT)
    if in_slot and (there is None or type(there) is Site):
        put_in_slot(module, site)
        return
    try:
        swap(module, site)
    except TypeError as error:
        close(site)
        kind = type(module).__qualname__
        message = f"{site.path or 'the model'} cannot be hooked: its class {kind} cannot be subclassed ({error})"
        raise AttachError(message) from error


def _decide(module: TorchModule, site: Site, hooks: tuple[Hook, ...]) -> None:
    site.hooks, site.plan = hooks, decide(hooks, module, site.path)


def _remove(module: TorchModule, hooks: tuple[Hook, ...]) -> None:
    site = site_of(module)
    if site is None:
        return
    left = () if site.hooks == hooks else tuple(hook for hook in site.hooks if hook not in hooks)
    if left:
        if any(hook not in left for hook in site.first):
            site.first = ()
        _decide(module, site, left)
    else:
        swap_back(module, site)


def on(
    model: TorchModule,
    where: Where,
    *,
    before: HookFunction | None = None,
    after: HookFunction | None = None,
    always: HookFunction | None = None,
    backward_before: HookFunction | None = None,
    backward: HookFunction | None = None,
    order: float = 0,
    compiled: Literal["trace", "callback"] = "trace",
) -> Handle:
    """Run your own hooks in every call of the selected modules; returns a handle, which is also a `with` block.

    A hook is a function of one argument, the `Call`: it reads and assigns `call.args`, `call.kwargs` and `call.output`.
    `before` runs before the module and before PyTorch's own hooks. `after` runs after them, on the output that the
    caller would receive. `always` runs last, whether or not the call raised (`call.error`), also on KeyboardInterrupt.
    The return value of a hook is ignored.

    In the backward pass `backward_before` runs when the gradients of all outputs have arrived, and may assign
    `call.grad_output`. `backward` runs when the module's own backward is finished, including the gradients of its
    parameters, and may assign `call.grad_input` (nested as `args`) and `call.grad_kwargs`. These gradients belong to
    this call alone, even if an argument is passed to other modules too. For that, the module receives each argument
    that requires a gradient as an alias, `x[...]`, which is one more autograd node: gradients that meet in one tensor
    may be summed in another order, so they can differ in the last bit. (`watch(grads=True)` needs no aliases.) If a
    module returns several outputs, or a parameter, the caller receives aliases too. The forward prepares the backward:
    hooks added between the two run from the next forward on, removed ones no longer run. A forward inside `torch.vmap`
    raises GradientError.

    Hooks of one phase run by `order`, smaller first, ties as they were added. A hook that raises ends the call; the
    error carries a note with the hook's name and the file and line that added it.

    In `torch.compile` a hook is traced: it becomes part of the graph, where `call.index` is 0 and `call.parent` is
    None. With compiled="callback" the graph calls the hook whenever it runs. The hook then sees the call as it does
    uncompiled but cannot change it, and must copy a tensor that it keeps, since the graph reuses the memory. Backward
    hooks are left out of a graph, with a warning when it is made.

    Pickling or copying a hooked module produces the plain one. `type(module)` does not change, except for a module that
    is compiled or has its own `__call__`: then `type(module) is X` is False and `type(module) == X` True.

    Raises SelectionError if `where` (see `select`) picks nothing.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    >>> def double(call):
    ...     call.output = 2 * call.output
    >>> x = torch.ones(1, 2)
    >>> with hookline.on(model, "1", after=double):
    ...     doubled = model(x)
    >>> torch.equal(doubled, 2 * model(x))
    True
    >>> with hookline.on(model, "0", backward=lambda call: print(call.path, call.grad_output[0])):
    ...     model(x).sum().backward()
    0 tensor([...])
    """
    hooks = make_hooks(
        before=before,
        after=after,
        always=always,
        backward_before=backward_before,
        backward=backward,
        order=order,
        compiled=compiled,
    )
    return attach(select(model, where), hooks)


# A class


class Module(TorchModule):
    """`torch.nn.Module` with this engine's call: hooks of PyTorch's API cost a fraction, nothing else changes.

    >>> import torch, hookline
    >>> class Double(hookline.Module):
    ...     def forward(self, x):
    ...         return 2 * x
    >>> Double()(torch.ones(2))
    tensor([2., 2.])
    """

    __call__ = call

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        notice_changes()


for _name, _slot in SLOTS.items():
    setattr(Module, _name, _slot)


# The process


class Installed:
    """One `install()` that has not been undone."""


_in_use: set[object] = set()


def install() -> Handle:
    """Run the calls of every `torch.nn.Module` in the process with this engine, until `uninstall()` or `remove()` of
    the handle.

    Hooks of PyTorch's API run as before, in the same order, with the same results, errors and warnings, at lower cost.
    Installing a second time has no effect. Raises AttachError if something else has replaced
    `torch.nn.Module.__call__`.

    >>> import torch, hookline
    >>> with hookline.install():
    ...     torch.nn.Identity()(torch.ones(1))
    tensor([1.])
    """
    reason = Installed()
    _use(reason)
    return Handle(lambda: _leave(reason))


def uninstall() -> None:
    """Restore the call of `torch.nn.Module`, however often the engine was installed. Doing it twice is harmless."""
    for reason in [reason for reason in _in_use if isinstance(reason, Installed)]:
        _leave(reason)


def everywhere(
    *,
    before: HookFunction | None = None,
    after: HookFunction | None = None,
    always: HookFunction | None = None,
    backward_before: HookFunction | None = None,
    backward: HookFunction | None = None,
    order: float = 0,
) -> AbstractContextManager[None]:
    """A `with` block in which the hooks run in every call of every module, in this thread or asyncio task alone.

    Hooks are as in `on`. `call.path` is the path below the outermost module that is called. Not seen are classes with
    their own `__call__`, and modules inside a compiled graph.

    >>> import torch, hookline
    >>> seen = []
    >>> with hookline.everywhere(before=lambda call: seen.append(call.path)):
    ...     _ = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Identity())(torch.ones(1))
    >>> seen
    ['', '0', '1']
    """
    hooks = make_hooks(
        before=before, after=after, always=always, backward_before=backward_before, backward=backward, order=order
    )
    return _everywhere(hooks)


@contextmanager
def _everywhere(hooks: tuple[Hook, ...]) -> Iterator[None]:
    block = Block(hooks)
    _use(block)
    try:
        enter(block)
        yield
    finally:
        leave(block)
        _leave(block)


def _use(reason: object) -> None:
    with hooks_lock:
        _in_use.add(reason)
        try:
            _settle()
        except BaseException:
            _in_use.discard(reason)
            raise


def _leave(reason: object) -> None:
    with hooks_lock:
        if reason not in _in_use:
            return
        _in_use.discard(reason)
        try:
            _settle()
        except BaseException:
            _in_use.add(reason)
            raise


def _settle() -> None:
    """Set the call of `torch.nn.Module` to what is needed now: PyTorch's, this engine's, or this engine's with scoped
    hooks around it."""
    scoped = any(isinstance(reason, Block) for reason in _in_use)
    ours = scoped_call if scoped else call
    if TorchModule.__call__ not in (PYTORCHS_CALL, call, scoped_call):
        other = getattr(TorchModule.__call__, "__qualname__", TorchModule.__call__)
        raise AttachError(
            f"torch.nn.Module.__call__ has been replaced by {other}; "
            "undo that first, then install or uninstall hookline"
        )

    Module.__call__ = ours  # type: ignore[method-assign]
    TorchModule.__call__ = ours if _in_use else PYTORCHS_CALL  # type: ignore[method-assign]
    if _in_use and "_forward_hooks" not in vars(TorchModule):
        for name, slot in SLOTS.items():
            setattr(TorchModule, name, slot)
        notice_changes()
    if not _in_use and "_forward_hooks" in vars(TorchModule):
        drop_every_plan()
        if not Module.__subclasses__():
            stop_noticing_changes()
        for name in HOOK_DICTS:
            delattr(TorchModule, name)
        TorchModule._compiled_call_impl = None
