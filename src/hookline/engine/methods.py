"""Hook methods other than `__call__` on one instance."""

import inspect
import itertools
import weakref
from collections.abc import Callable, Iterable
from functools import partial, update_wrapper
from types import MethodType
from typing import Any

from torch.compiler import is_dynamo_compiling
from torch.nn import Module

from hookline.engine.call import Call, here, new_call
from hookline.engine.hook import Handle, Hook
from hookline.engine.plan import NO_HOOKS, Plan, decide
from hookline.engine.run import run
from hookline.engine.site import hooks_lock, site_of
from hookline.engine.stand_in import swap
from hookline.engine.traced import warn_of_method

NOTHING: Any = object()


class MethodCall(Call):
    """A call of one of a module's methods; its path ends with the name of the method and ()."""

    __slots__ = ("method",)

    method: str


class Method:
    """One hooked method of one module: a function in the instance's `__dict__`, which has the signature of the method
    and hides it. A copied or pickled module does not have it."""

    __slots__ = ("before", "count", "hooks", "inner", "module", "name", "passed", "path", "plan", "standing")
    first = ()

    def __init__(self, module: Module, path: str, name: str) -> None:
        self.module = weakref.ref(module)
        self.name = name
        self.path = method_path(path, name)
        self.before = module.__dict__.get(name, NOTHING)
        self.inner: Callable[..., Any] = getattr(module, name)
        self.hooks: tuple[Hook, ...] = ()
        self.plan: Plan = NO_HOOKS
        self.count = itertools.count()
        self.passed: weakref.WeakSet[Call] = weakref.WeakSet()
        self.standing = self._standing(module)

    def path_of(self, module: Module) -> str:
        """The path of a Call: that of the module and the name of the method."""
        return self.path

    def put_in(self, module: Module) -> None:
        """Set it on the instance, where it hides the method."""
        module.__dict__[self.name] = self.standing

    def take_out(self, module: Module) -> None:
        """Restore the instance's attribute, unless other code has replaced it since."""
        if module.__dict__.get(self.name) is not self.standing:
            return
        if self.before is NOTHING:
            del module.__dict__[self.name]
        else:
            module.__dict__[self.name] = self.before

    def around(self, module: Module, /, *args: Any, **kwargs: Any) -> Any:
        """The hooks around one call of the method."""
        if is_dynamo_compiling():
            if self.hooks and self.name != "forward":
                warn_of_method(self.name)
            return self.inner(*args, **kwargs)
        if not self.hooks or self._is_the_calls_own(module):
            return self.inner(*args, **kwargs)
        call = new_call(module, self, next(self.count), args, kwargs, MethodCall)
        call.method = self.name
        return run(self.plan, call, self.inner)

    def _is_the_calls_own(self, module: Module) -> bool:
        """Whether this is the forward within a call of the module, which is seen as that call."""
        call = here.running.call
        if self.name != "forward" or call is None or call.module is not module or isinstance(call, MethodCall):
            return False
        if call in self.passed:
            return False  # the module calls its forward once more, by name
        self.passed.add(call)
        return True

    def _standing(self, module: Module) -> Any:
        """A function that looks like the method; bound if the method is bound."""
        around = partial(self.around, module)
        if not isinstance(self.inner, MethodType):
            return update_wrapper(lambda *args, **kwargs: around(*args, **kwargs), self.inner)
        function = update_wrapper(lambda _, /, *args, **kwargs: around(*args, **kwargs), self.inner.__func__)
        return MethodType(function, self.inner.__self__)


def method_path(path: str, name: str) -> str:
    """The path of a method in a run.

    >>> method_path("encoder", "generate"), method_path("", "generate")
    ('encoder.generate()', 'generate()')
    """
    return f"{path}.{name}()" if path else f"{name}()"


def has_method(module: Module, name: str) -> bool:
    """Whether a module, or its class, has a method of this name that can be hooked. A property or a child is not a
    method, and methods that Python looks up on the class, such as `__call__`, cannot be hooked like this."""
    if name.startswith("__"):
        return False
    found = inspect.getattr_static(module, name, None)
    if name == "forward" and found is Module.forward:
        return False  # a container, which has none
    return callable(found) or isinstance(found, staticmethod | classmethod)


def attach_methods(modules: Iterable[tuple[str, Module]], names: Iterable[str], hooks: tuple[Hook, ...]) -> Handle:
    """Add the hooks to the named methods of these (path, module)s, where they have them; returns the undo. The same
    hooks are on the calls of the modules already, and must stay longer."""
    put: list[tuple[weakref.ref[Module], Method]] = []

    def undo() -> None:
        with hooks_lock:
            for reference, method in reversed(put):
                _remove(reference(), method, hooks)

    try:
        with hooks_lock:
            for path, module in modules:
                for name in names:
                    if has_method(module, name):
                        put.append((weakref.ref(module), _add(module, path, name, hooks)))
    except BaseException:
        undo()
        raise
    return Handle(undo)


def _add(module: Module, path: str, name: str, hooks: tuple[Hook, ...]) -> Method:
    site = site_of(module)
    assert site is not None, "a module has hooks on its call first"
    if not site.swapped:  # its stand-in makes copies of the module without the hooked methods
        swap(module, site)
    if site.methods is None:
        site.methods = {}
    method: Method | None = site.methods.get(name)
    if method is None:
        method = site.methods[name] = Method(module, path, name)
        method.put_in(module)
    method.hooks = (*method.hooks, *hooks)
    method.plan = decide(method.hooks)
    return method


def _remove(module: Module | None, method: Method, hooks: tuple[Hook, ...]) -> None:
    method.hooks = tuple(hook for hook in method.hooks if hook not in hooks)
    method.plan = decide(method.hooks)
    site = None if module is None else site_of(module)
    if module is not None and not method.hooks:
        method.take_out(module)
        if site is not None and site.methods:
            site.methods.pop(method.name, None)
