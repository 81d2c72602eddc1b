"""PyTorch's own hooks: the call that runs them.

The hooks of a module stay where PyTorch keeps them, in its hook dicts. Where those dicts can tell when they change
(hook_dicts.py) the hooks are sorted into a plan once, and a call runs the plan; everywhere else a call looks the hooks
up, as PyTorch does.
"""

import inspect
import warnings
from collections.abc import Callable, Collection
from types import FunctionType
from typing import Any

import torch
import torch.nn.modules.module as torch_module
from torch.jit import _trace
from torch.nn import Module

from hookline.engine.hook_dicts import HOOK_DICTS, HookPlan, Wiring, changing, wire

PYTORCHS_CALL_IMPL = Module._call_impl


def call(self: Module, /, *args: Any, **kwargs: Any) -> Any:
    """The module call: `__call__` of every module under `install()`, and of `hookline.Module`."""
    namespace = self.__dict__
    try:
        wiring = namespace["_forward_hooks"].wiring
        plan = wiring.plan
    except (AttributeError, KeyError):
        plan = None
    if (
        plan is None
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
        or _trace._trace_module_map is not None
    ):
        return call_in_full(self, args, kwargs)
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        if plan.plain is None or torch_module._global_forward_pre_hooks:
            return call_undecided(self, args, kwargs)
    elif plan.direct is not None:
        function = plan.direct
        if kwargs or len(args) != 1 or type(self).forward is not function or "forward" in namespace:
            return self.forward(*args, **kwargs)
        return function(self, args[0])
    elif plan.plain is None:
        return call_decided(self, plan, wiring, args, kwargs)
    elif not plan.plain:
        return self.forward(*args, **kwargs)

    output = None
    try:
        function = plan.function
        if function is None or kwargs or len(args) != 1 or type(self).forward is not function or "forward" in namespace:
            output = self.forward(*args, **kwargs)
        else:
            output = function(self, args[0])
        hooks = plan.plain
        if torch_module._global_forward_hooks:
            elaborate = (
                torch_module._global_forward_hooks_with_kwargs or torch_module._global_forward_hooks_always_called
            )
            hooks = None if elaborate else (*torch_module._global_forward_hooks.values(), *hooks)
        if wiring.plan is plan and hooks is not None:
            for hook in hooks:
                result = hook(self, args, output)
                if result is not None:
                    output = result
            return output
    except Exception:
        run_always(self, args, kwargs, output, ())
        raise
    return run_after(self, args, kwargs, output)  # hooks came or went while the module ran


def call_decided(self: Module, plan: HookPlan, wiring: Wiring, args: Any, kwargs: Any) -> Any:
    """The call with the hooks of a plan, of whatever kinds; a hook that changes the hooks is seen to at once."""
    forward = self.forward
    output = last = None
    given = kwargs
    try:
        for hook_id, hook, with_kwargs in plan.before:
            if wiring.plan is not plan:
                with_kwargs = hook_id in self._forward_pre_hooks_with_kwargs
            result = hook(self, args, kwargs) if with_kwargs else hook(self, args)
            if result is not None:
                args, kwargs = new_arguments(result, kwargs, with_kwargs)

        output = forward(*args, **kwargs) if kwargs or kwargs is not given else forward(*args)

        if wiring.plan is plan and not torch_module._global_forward_hooks:
            for last, hook, with_kwargs in plan.after:
                if wiring.plan is not plan:
                    with_kwargs = last in self._forward_hooks_with_kwargs
                result = hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
                if result is not None:
                    output = result
            return output
    except Exception:
        run_always(self, args, kwargs, output, plan.begun(last))
        raise
    return run_after(self, args, kwargs, output)


def call_in_full(self: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call that something keeps off the straight path above."""
    if torch.compiler.is_compiling():
        return self._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]
    if self._compiled_call_impl is not None:
        return self._compiled_call_impl(*args, **kwargs)
    if _is_pytorchs(self):
        return self._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]
    decide(self)
    return call_undecided(self, args, kwargs)


def call_undecided(self: Module, args: Any, kwargs: Any) -> Any:
    """The call with every forward hook looked up on the spot, global ones first."""
    namespace = self.__dict__
    forward = self.forward
    before = torch_module._global_forward_pre_hooks or namespace["_forward_pre_hooks"]
    if not (before or torch_module._global_forward_hooks or namespace["_forward_hooks"]):
        return forward(*args, **kwargs)  # a hook that comes while the module runs waits for the next call
    try:
        if before:
            for hook_id, hook in (
                *torch_module._global_forward_pre_hooks.items(),
                *namespace["_forward_pre_hooks"].items(),
            ):
                with_kwargs = hook_id in namespace["_forward_pre_hooks_with_kwargs"]
                result = hook(self, args, kwargs) if with_kwargs else hook(self, args)
                if result is not None:
                    args, kwargs = new_arguments(result, kwargs, with_kwargs)

        output = forward(*args, **kwargs)
    except Exception:
        run_always(self, args, kwargs, None, ())
        raise
    return run_after(self, args, kwargs, output)


def run_after(self: Module, args: Any, kwargs: Any, output: Any) -> Any:
    """The output after every forward hook, each looked up on the spot, global ones first."""
    hooks = [*torch_module._global_forward_hooks.items()]
    own = self.__dict__["_forward_hooks"]
    if own:
        hooks += own.items()
    rest = iter(hooks)
    try:
        for hook_id, hook in rest:
            if hook_id in torch_module._global_forward_hooks_with_kwargs or (
                own and hook_id in self._forward_hooks_with_kwargs
            ):
                result = hook(self, args, kwargs, output)
            else:
                result = hook(self, args, output)
            if result is not None:
                output = result
        return output
    except Exception:
        begun = hooks[: len(hooks) - len([*rest])]
        run_always(self, args, kwargs, output, [hook_id for hook_id, _ in begun])
        raise


def run_always(self: Module, args: Any, kwargs: Any, output: Any, begun: Collection[int]) -> None:
    """After an exception: the `always_call` hooks that have not begun, their own exceptions turned into PyTorch's
    warnings.

    Global ones are called without kwargs even where they asked for them: PyTorch does so, and hooks of its API get what
    they know.
    """
    kinds = (
        ("global module", torch_module._global_forward_hooks, torch_module._global_forward_hooks_always_called, ()),
        ("module", self._forward_hooks, self._forward_hooks_always_called, self._forward_hooks_with_kwargs),
    )
    for kind, hooks, always, takes_kwargs in kinds:
        for hook_id, hook in hooks.items():
            if hook_id not in always or hook_id in begun:
                continue
            try:
                result = hook(self, args, kwargs, output) if hook_id in takes_kwargs else hook(self, args, output)
                if result is not None:
                    output = result
            except Exception as error:
                warnings.warn(
                    f"{kind} forward hook with ``always_call=True`` raised an exception "
                    f"that was silenced as another error was raised in forward: {error!s}",
                    stacklevel=2,
                )


def new_arguments(result: Any, kwargs: Any, with_kwargs: bool) -> tuple[Any, Any]:
    """The (args, kwargs) that a forward-pre hook's result stands for."""
    if not with_kwargs:
        return (result if isinstance(result, tuple) else (result,)), kwargs
    if isinstance(result, tuple) and len(result) == 2:
        return result
    raise RuntimeError(f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {result}.")


def decide(self: Module) -> None:
    """Sort the module's forward hooks into a plan that holds until they change, where its hook dicts can tell of it."""
    with changing:
        wiring = wire(self)
        if wiring is None:
            return
        with_kwargs = self._forward_pre_hooks_with_kwargs
        before = tuple((hook_id, hook, hook_id in with_kwargs) for hook_id, hook in self._forward_pre_hooks.items())
        with_kwargs = self._forward_hooks_with_kwargs
        after = tuple((hook_id, hook, hook_id in with_kwargs) for hook_id, hook in self._forward_hooks.items())
        is_plain = not (before or with_kwargs or self._forward_hooks_always_called)
        plain = tuple(hook for _, hook, _ in after) if is_plain else None
        function = _plain_forward(type(self))
        wiring.plan = HookPlan(before, after, plain, function, function if plain == () else None)


def _plain_forward(kind: type[Module]) -> Callable[..., Any] | None:
    """The forward of a class where reading it on an instance gives that function, bound, and nothing else."""
    forward = inspect.getattr_static(kind, "forward", None)
    read_as_usual = kind.__getattribute__ is object.__getattribute__ and not issubclass(kind, torch.jit.ScriptModule)
    return forward if type(forward) is FunctionType and read_as_usual else None


def _is_pytorchs(self: Module) -> bool:
    """Whether this call is left to PyTorch: backward hooks, tracing, a call of the module's own, missing hook dicts."""
    namespace = self.__dict__
    return bool(
        self._backward_hooks
        or self._backward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
        or torch._C._get_tracing_state()
        or type(self)._call_impl is not PYTORCHS_CALL_IMPL
        or "_call_impl" in namespace
        or not all(name in namespace for name in HOOK_DICTS)
    )
