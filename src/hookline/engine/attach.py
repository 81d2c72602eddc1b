"""Where the engine is put into PyTorch, at three heights: one instance, a class, the process. The only file that
changes what `module(x)` finds on a type, and that puts it back.

An instance: its class is swapped for a stand-in, a cached subclass of the same name whose `__class__` still says the
original.
"""

import copy
import itertools
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any

import torch.nn.modules.module as torch_module
from torch.compiler import is_dynamo_compiling
from torch.jit import _trace
from torch.nn import Module as TorchModule

from hookline.engine.call import Call
from hookline.engine.hook import Handle, Hook, Step, make_hooks
from hookline.engine.hook_dicts import HOOK_DICTS, SLOTS
from hookline.engine.plan import Plan, decide
from hookline.engine.run import run
from hookline.engine.scope import Scope, current, scoped_call
from hookline.engine.torch_hooks import PYTORCHS_CALL_IMPL, call
from hookline.errors import AttachError
from hookline.model.select import Where, select

SITE = "_hookline"
PYTORCHS_CALL = TorchModule.__call__
set_class = object.__dict__["__class__"].__set__


# One instance


class Site:
    """What the engine keeps in a module that has hooks of ours: its class, that class' call, its path, its hooks and
    their plan."""

    __slots__ = ("call", "count", "hooks", "original", "path", "plan")

    original: type[TorchModule]
    call: Any
    path: str
    count: "itertools.count[int]"
    hooks: tuple[Hook, ...]
    plan: Plan

    def path_of(self, module: TorchModule) -> str:
        """The module's path, for a Call."""
        return self.path


def straight_call(original: type[TorchModule]) -> Any:
    """The call of a class if, without hooks of PyTorch's, it is the forward and nothing else; None where that is not
    known."""
    found = original.__call__
    known = (found is PYTORCHS_CALL or found is call) and original._call_impl is PYTORCHS_CALL_IMPL
    return found if known else None


def hooked_call(self: TorchModule, /, *args: Any, **kwargs: Any) -> Any:
    """`__call__` of a stand-in: our own steps around the call of the original class."""
    try:
        site = self.__dict__["_hookline"]
    except KeyError:  # a copy made behind our back has no site
        site = None
    if site is None or is_dynamo_compiling():
        return type(self).__base__.__call__(self, *args, **kwargs)  # type: ignore[operator]

    call = Call()
    call.module = self
    call.names = site
    call.index = next(site.count)
    call.args = args
    call.kwargs = kwargs
    call.output = call.error = None
    return run(site.plan, call, call_original)


def call_original(call: Call) -> Any:
    """The call of the original class; its forward straight, where nothing of PyTorch's is to run around it."""
    module, args, kwargs = call.module, call.args, call.kwargs
    namespace = module.__dict__
    site = namespace["_hookline"]
    original = site.original
    if (
        original.__call__ is not site.call
        or namespace["_forward_hooks"]
        or namespace["_forward_pre_hooks"]
        or namespace["_backward_hooks"]
        or namespace["_backward_pre_hooks"]
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
        or _trace._trace_module_map is not None
        or "_compiled_call_impl" in namespace
    ):
        return original.__call__(module, *args, **kwargs)
    if kwargs:
        return module.forward(*args, **kwargs)
    return module.forward(*args)


def attach(modules: Iterable[tuple[str, TorchModule]], hooks: tuple[Hook, ...]) -> Handle:
    """Put the hooks on all of these (path, module)s, or on none where one cannot be hooked; gives their undo."""
    attached: list[weakref.ref[TorchModule]] = []

    def undo() -> None:
        with changing:
            for reference in attached:
                module = reference()
                if module is not None and SITE in module.__dict__:
                    _take_off(module, hooks)

    try:
        with changing:
            plan = decide(hooks)
            kinds: dict[type[TorchModule], tuple[type[TorchModule], Any]] = {}
            for path, module in modules:
                attached.append(weakref.ref(module))
                namespace = module.__dict__
                if SITE not in namespace:
                    namespace[SITE] = _new_site(path, module, kinds)
                site = namespace[SITE]
                site.plan = decide((*site.hooks, *hooks)) if site.hooks else plan
                site.hooks = site.plan.hooks
    except BaseException:
        undo()
        raise
    return Handle(undo)


changing = threading.RLock()


def _new_site(path: str, module: TorchModule, kinds: dict[type[TorchModule], tuple[type[TorchModule], Any]]) -> Site:
    """The site of a module, whose class it swaps; `kinds` holds what was found out about each class on the way."""
    original = type(module)
    if original not in kinds:
        kinds[original] = _stand_in(original, path), straight_call(original)
    site = Site()
    site.original = original
    site.path = path
    site.count = itertools.count()
    site.hooks = ()
    swapped, site.call = kinds[original]
    set_class(module, swapped)
    return site


def _take_off(module: TorchModule, hooks: tuple[Hook, ...]) -> None:
    site = module.__dict__[SITE]
    left = () if site.hooks == hooks else tuple(hook for hook in site.hooks if hook not in hooks)
    if left:
        site.plan = decide(left)
        site.hooks = left
    else:
        set_class(module, site.original)
        del module.__dict__[SITE]


def _stand_in(original: type[TorchModule], path: str) -> type[TorchModule]:
    try:
        return stand_in(original)  # type: ignore[arg-type]
    except TypeError as error:
        raise AttachError(
            f"{path or 'the model'} cannot be hooked: "
            f"its class {original.__qualname__} does not let itself be subclassed ({error})"
        ) from error


@lru_cache(maxsize=1024)
def stand_in(original: type[TorchModule]) -> type[TorchModule]:
    """The class that a hooked instance of `original` has meanwhile: a subclass of the same name with a call of ours."""
    body = {
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "__slots__": (),
        "__call__": hooked_call,
        "__class__": property(_get_class, _set_class),
        "__reduce_ex__": _reduce_ex,
        "__deepcopy__": _deepcopy,
    }
    metaclass: Any = type(original)
    made: type[TorchModule] = metaclass(original.__name__, (original,), body)
    return made


def _get_class(self: TorchModule) -> type[TorchModule]:
    site = self.__dict__.get(SITE)
    return type(self).__base__ if site is None else site.original  # type: ignore[return-value]


def _set_class(self: TorchModule, wanted: type[TorchModule]) -> None:
    """Another class for a hooked instance (parametrize, fully_shard and lazy modules give it one): it stays hooked, and
    keeps that class when the hooks are gone."""
    set_class(self, stand_in(wanted))  # type: ignore[arg-type]
    site = self.__dict__[SITE]
    site.original, site.call = wanted, straight_call(wanted)


@contextmanager
def _bare(module: TorchModule) -> Iterator[None]:
    """The module as it is without hooks of ours, for as long as it is copied."""
    with changing:
        site = module.__dict__.pop(SITE, None)
        hooked = type(module)
        set_class(module, hooked.__base__ if site is None else site.original)
        try:
            yield
        finally:
            set_class(module, hooked)
            if site is not None:
                module.__dict__[SITE] = site


def _reduce_ex(self: TorchModule, protocol: Any) -> Any:
    with _bare(self):
        return self.__reduce_ex__(protocol)


def _deepcopy(self: TorchModule, memo: dict[int, Any]) -> Any:
    with _bare(self):
        return copy.deepcopy(self, memo)


def on(
    model: TorchModule,
    where: Where,
    *,
    before: Step | None = None,
    after: Step | None = None,
    always: Step | None = None,
    order: float = 0,
) -> Handle:
    """Run steps of yours in every call of the selected modules; gives a handle, which is also a `with` block.

    A step is a function of one argument, the `Call`: it reads and assigns `call.args`, `call.kwargs` and `call.output`.
    `before` runs before the module and before PyTorch's own hooks, `after` runs after them, on what the caller would
    get; `always` runs last, whether or not the call raised (`call.error`), also on KeyboardInterrupt. What a step
    returns is ignored.

    Steps of one phase run by `order`, smaller first, ties as they were added. A step that raises ends the call; the
    error carries a note with the step's name and the file and line that added it.

    Pickling or copying a hooked module gives the plain one.

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
    """
    hooks = make_hooks({"before": before, "after": after, "always": always}, order=order)
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


for _name, _slot in SLOTS.items():
    setattr(Module, _name, _slot)


# The process


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
    _use("install")
    return Handle(uninstall)


def uninstall() -> None:
    """Give `torch.nn.Module` its own call back. Doing it twice is harmless."""
    _leave("install")


def everywhere(
    *, before: Step | None = None, after: Step | None = None, always: Step | None = None, order: float = 0
) -> AbstractContextManager[None]:
    """A `with` block in which the steps run in every call of every module, in this thread or asyncio task alone.

    Steps are as in `on`. `call.path` is the path below the outermost module that is called. Classes that bring a
    `__call__` of their own are not seen, nor are modules inside of a compiled one.

    >>> import torch, hookline
    >>> seen = []
    >>> with hookline.everywhere(before=lambda call: seen.append(call.path)):
    ...     _ = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Identity())(torch.ones(1))
    >>> seen
    ['', '0', '1']
    """
    return _everywhere(make_hooks({"before": before, "after": after, "always": always}, order=order))


@contextmanager
def _everywhere(hooks: tuple[Hook, ...]) -> Iterator[None]:
    outer = current.get()
    scope = Scope((*(outer.hooks if outer else ()), *hooks))
    _use(scope)
    token = current.set(scope)
    try:
        yield
    finally:
        current.reset(token)
        _leave(scope)


def _use(reason: object) -> None:
    with changing:
        _in_use.add(reason)
        try:
            _settle()
        except BaseException:
            _in_use.discard(reason)
            raise


def _leave(reason: object) -> None:
    with changing:
        _in_use.discard(reason)
        _settle()


def _settle() -> None:
    """Give `torch.nn.Module` the call that what is in use asks for: PyTorch's, this engine's, or this with scoped steps
    around it."""
    scoped = any(isinstance(reason, Scope) for reason in _in_use)
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
    if not _in_use and "_forward_hooks" in vars(TorchModule):
        for name in HOOK_DICTS:
            delattr(TorchModule, name)
        TorchModule._compiled_call_impl = None
