"""Where the engine is put into PyTorch, at three heights: one instance, a class, the process; and taken out again."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

from torch.nn import Module as TorchModule

from hookline.engine.compile_start import attached as ever_attached
from hookline.engine.compile_start import hear_of_tracing, is_known_to_graphs
from hookline.engine.forwarding import original_class
from hookline.engine.global_hooks import tell, tell_no_more
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
    """Put the hooks on all of these (path, module)s, or on none where one cannot be hooked; gives their undo."""
    attached: list[weakref.ref[TorchModule]] = []

    def undo() -> None:
        with hooks_lock:
            for hook in hooks:
                hook.active = False
            no_call_half_way()
            for reference in attached:
                module = reference()
                if module is not None:
                    _take_off(module, hooks)

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
            hear_of_tracing()
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
    """Take one hook off one module; where it is not on, nothing happens."""
    with hooks_lock:
        no_call_half_way()
        _take_off(module, (hook,))


def _remember(hooks: tuple[Hook, ...], plan: Plan) -> None:
    """Remember the modules for when a graph is made: they get stand-ins then, and keys that stand for them in it; now,
    where graphs are made already."""
    ever_attached.add(hooks[0])
    if plan.compiled.taps or plan.compiled.leaves_out:
        graph_calls.without_keys.add(hooks[0])
        if graphs.made:
            graph_calls.give_keys()


def _enter(module: TorchModule, site: Site, in_slot: bool) -> None:
    """Have the calls of a module go to its new site: from its slot, or, where that does not serve, by a stand-in."""
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
        message = (
            f"{site.path or 'the model'} cannot be hooked: its class {kind} does not let itself be subclassed ({error})"
        )
        raise AttachError(message) from error


def _decide(module: TorchModule, site: Site, hooks: tuple[Hook, ...]) -> None:
    site.hooks, site.plan = hooks, decide(hooks, module, site.path)


def _take_off(module: TorchModule, hooks: tuple[Hook, ...]) -> None:
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
    """Run hooks of yours in every call of the selected modules; gives a handle, which is also a `with` block.

    A hook is a function of one argument, the `Call`: it reads and assigns `call.args`, `call.kwargs` and `call.output`.
    `before` runs before the module and before PyTorch's own hooks, `after` runs after them, on what the caller would
    get; `always` runs last, whether or not the call raised (`call.error`), also on KeyboardInterrupt. What a hook
    returns is ignored.

    In the backward pass `backward_before` runs when the gradients of all that the module gave are there, and may
    assign `call.grad_output`; `backward` runs when the module's own backward is through, its parameters' gradients
    included, and may assign `call.grad_input` (nested as `args`) and `call.grad_kwargs`. What they see is of this call
    alone, also where an argument goes to other modules too. For that each argument that gradients flow to reaches the
    module as an alias, `x[...]`, which is an autograd node more: gradients that meet in one tensor may be summed
    in another order, so they can differ in the last bit. (`watch(grads=True)` does without.) The outputs of a module
    that gives several, and a parameter that a module returns, reach the caller as aliases too. The forward makes ready
    for the backward: hooks that are put on between the two count from the next forward; removed ones run no more. A
    forward inside `torch.vmap` raises GradientError.

    Hooks of one phase run by `order`, smaller first, ties as they were added. A hook that raises ends the call; the
    error carries a note with the hook's name and the file and line that added it.

    Inside of `torch.compile` a hook is traced: it becomes part of the graph, where `call.index` is 0 and `call.parent`
    None. With compiled="callback" the graph calls it whenever it runs: it sees the call as it does uncompiled, changes
    nothing of it, and copies a tensor that it keeps, since the graph uses the memory again. Backward hooks are left out
    of a graph, and a warning says so when it is made.

    Pickling or copying a hooked module gives the plain one. `type(module)` is what it was, but for a module that is
    compiled or has a `__call__` of its own: then `type(module) is X` is False and `type(module) == X` True.

    Raises SelectionError where `where` (see `select`) picks nothing.

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
    """`torch.nn.Module` with this engine's call: hooks of PyTorch's API cost a fraction, all else is as it was.

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
        tell()


for _name, _slot in SLOTS.items():
    setattr(Module, _name, _slot)


# The process


class Installed:
    """One `install()` that has not been undone."""


_in_use: set[object] = set()


def install() -> Handle:
    """Let this engine run the call of every `torch.nn.Module` in the process, until `uninstall()` or `remove()` of the
    handle.

    Hooks of PyTorch's API run as before, in the same order, with the same results, errors and warnings; they only cost
    less. Installing twice is installing once. Raises AttachError where something else has replaced
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
    """Give `torch.nn.Module` its own call back, however often it was installed. Doing it twice is harmless."""
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

    Hooks are as in `on`. `call.path` is the path below the outermost module that is called. Classes that bring a
    `__call__` of their own are not seen, nor are modules inside a compiled graph.

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
    """Give `torch.nn.Module` the call that what is in use asks for: PyTorch's, this engine's, or this with scoped hooks
    around it."""
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
        tell()
    if not _in_use and "_forward_hooks" in vars(TorchModule):
        drop_every_plan()
        if not Module.__subclasses__():
            tell_no_more()
        for name in HOOK_DICTS:
            delattr(TorchModule, name)
        TorchModule._compiled_call_impl = None
