"""The module call with PyTorch's own hooks.

The hooks of a module stay where PyTorch keeps them, in its hook dicts. If changes of those dicts are noticed
(hook_dicts.py, global_hooks.py), the hooks are sorted into a plan once, and calls run the plan. Otherwise every call
looks up the hooks, as PyTorch does.
"""

import warnings
import weakref
from collections.abc import Callable, Collection
from typing import Any

from torch.nn import Module

from hookline.engine.global_hooks import notice_changes, process
from hookline.engine.hook_dicts import HOOK_DICTS, HookPlan, PlannedHook, Wiring, can_be_wired, dicts_lock, wire
from hookline.engine.torch_backward import BackwardHooks, has_backward_hooks
from hookline.engine.unseen import begin_no_graph, trace_as_pytorchs
from hookline.torch_private import get_tracing_state, tracing_to_script

PYTORCHS_CALL_IMPL = Module._call_impl
NAMES = frozenset(HOOK_DICTS)


def call(self: Module, /, *args: Any, **kwargs: Any) -> Any:
    """The module call: `__call__` of every module under `install()`, and of `hookline.Module`."""
    try:
        wiring = self.__dict__["_forward_hooks"].wiring
    except (AttributeError, KeyError):  # a plain dict, or no dict
        wiring = None
    if wiring is None:  # not inside `except`: the error refers to the dict, which then could not be wired
        return call_in_full(self, args, kwargs)
    plan = wiring.plan
    if plan is None or tracing_to_script._trace_module_map is not None:
        return call_in_full(self, args, kwargs)
    run = plan.run
    if run is not None:
        return run(self, args, kwargs, plan, wiring)
    forward = self.forward
    hooks = plan.plain
    if not hooks:
        return forward(*args, **kwargs) if kwargs else forward(*args)

    output = None
    try:
        output = forward(*args, **kwargs) if kwargs else forward(*args)
        if wiring.plan is plan:
            for hook in hooks:
                result = hook(self, args, output)
                if result is not None:
                    output = result
            return output
    except Exception:
        run_always(self, args, kwargs, output, ())
        raise
    return run_after(self, args, kwargs, output)  # hooks were added or removed while the module ran


call.__annotations__ = {}  # like PyTorch's call: torch.jit.script reads them
trace_as_pytorchs(call)


def run_few(before: tuple[PlannedHook, ...], after: tuple[PlannedHook, ...]) -> Callable[..., Any]:
    """The call with at most one hook before the forward and one after it, of any kind.

    Most hooked modules have no more. Without the two loops such a call takes about 0.89 of the time of `run_many`.
    """
    _, hook_before, before_takes_kwargs = before[0] if before else (None, None, False)
    id_after, hook_after, after_takes_kwargs = after[0] if after else (None, None, False)

    def run(self: Module, args: Any, kwargs: Any, plan: HookPlan, wiring: Wiring) -> Any:
        forward = self.forward
        given = kwargs
        output = None
        begun: tuple[Any, ...] = ()
        try:
            if hook_before is not None:
                result = hook_before(self, args, kwargs) if before_takes_kwargs else hook_before(self, args)
                if result is not None:
                    args, kwargs = new_arguments(result, kwargs, before_takes_kwargs)

            output = forward(*args, **kwargs) if kwargs or kwargs is not given else forward(*args)

            if wiring.plan is plan:
                if hook_after is None:
                    return output
                begun = (id_after,)
                result = (
                    hook_after(self, args, kwargs, output) if after_takes_kwargs else hook_after(self, args, output)
                )
                return output if result is None else result
        except Exception:
            run_always(self, args, kwargs, output, begun)
            raise
        return run_after(self, args, kwargs, output)

    return run


def run_many(self: Module, args: Any, kwargs: Any, plan: HookPlan, wiring: Wiring) -> Any:
    """The call with any number of forward hooks; if one of them changes the hooks, that takes effect at once."""
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

        if wiring.plan is plan:
            for last, hook, with_kwargs in plan.after:
                if wiring.plan is not plan:
                    with_kwargs = takes_kwargs(self, last)
                result = hook(self, args, kwargs, output) if with_kwargs else hook(self, args, output)
                if result is not None:
                    output = result
            return output
    except Exception:
        run_always(self, args, kwargs, output, plan.begun(last))
        raise
    return run_after(self, args, kwargs, output)


def run_legacy(module: Module, gradients: BackwardHooks) -> Callable[..., Any]:
    """The call with legacy backward hooks and no others. They are bound to their module, so a shallow copy of it, which
    shares the plan, looks up its own. Their kind is in an attribute whose changes are not noticed, so it is checked."""
    owner = weakref.ref(module)
    kind = module._is_full_backward_hook

    def run(self: Module, args: Any, kwargs: Any, plan: HookPlan, wiring: Wiring) -> Any:
        if owner() is not self or self._is_full_backward_hook is not kind:
            return call_undecided(self, args, kwargs)
        output = None
        try:
            output = self.forward(*args, **kwargs)
            if wiring.plan is plan:
                return gradients.of_output(self, args, output)
        except Exception:
            run_always(self, args, kwargs, output, ())
            raise
        return run_after(self, args, kwargs, output, gradients)

    return run


def run_beside_global_hooks(self: Module, args: Any, kwargs: Any, plan: HookPlan, wiring: Wiring) -> Any:
    """The call if changes of global hooks are not noticed: the forward alone while there are no hooks of any kind."""
    if (
        process["_global_forward_hooks"]
        or process["_global_forward_pre_hooks"]
        or process["_global_backward_hooks"]
        or process["_global_backward_pre_hooks"]
    ):
        return call_undecided(self, args, kwargs)
    return self.forward(*args, **kwargs)


def run_undecided(self: Module, args: Any, kwargs: Any, plan: HookPlan, wiring: Wiring) -> Any:
    """The call with backward hooks, where a plan would gain nothing: looking up hooks is cheap next to their cost."""
    return call_undecided(self, args, kwargs)


def call_in_full(self: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call outside the fast path above: without a plan, under tracing, or for a module with its own call."""
    compiled = self._compiled_call_impl
    if compiled is not None:
        return compiled(*args, **kwargs)
    if _is_its_own(self):
        return self._call_impl(*args, **kwargs)  # type: ignore[no-untyped-call]
    if can_be_wired(self):
        decide(self)
    return call_undecided(self, args, kwargs)


def call_undecided(self: Module, args: Any, kwargs: Any) -> Any:
    """The call with every hook looked up during the call, global ones first."""
    namespace = self.__dict__
    forward: Callable[..., Any] = self._slow_forward if get_tracing_state() else self.forward
    before = process["_global_forward_pre_hooks"] or namespace["_forward_pre_hooks"]
    backward = has_backward_hooks(self)
    if not (before or backward or process["_global_forward_hooks"] or namespace["_forward_hooks"]):
        return forward(*args, **kwargs)  # hooks added while the module runs begin with the next call
    try:
        gradients = BackwardHooks(self) if backward else None
        if before:
            for hook_id, hook in (
                *process["_global_forward_pre_hooks"].items(),
                *namespace["_forward_pre_hooks"].items(),
            ):
                with_kwargs = hook_id in namespace["_forward_pre_hooks_with_kwargs"]
                result = hook(self, args, kwargs) if with_kwargs else hook(self, args)
                if result is not None:
                    args, kwargs = new_arguments(result, kwargs, with_kwargs)

        if gradients is not None:
            args = gradients.of_inputs(args)
        output = forward(*args, **kwargs)
    except Exception:
        run_always(self, args, kwargs, None, ())
        raise
    return run_after(self, args, kwargs, output, gradients)


def run_after(self: Module, args: Any, kwargs: Any, output: Any, gradients: BackwardHooks | None = None) -> Any:
    """The output after every forward hook, looked up now, global ones first, and after the call's backward hooks are
    set up."""
    hooks = [*process["_global_forward_hooks"].items(), *self.__dict__["_forward_hooks"].items()]
    rest = iter(hooks)
    try:
        for hook_id, hook in rest:
            result = hook(self, args, kwargs, output) if takes_kwargs(self, hook_id) else hook(self, args, output)
            if result is not None:
                output = result
        return output if gradients is None else gradients.of_output(self, args, output)
    except Exception:
        begun = hooks[: len(hooks) - len([*rest])]
        run_always(self, args, kwargs, output, [hook_id for hook_id, _ in begun])
        raise


def takes_kwargs(self: Module, hook_id: Any) -> bool:
    """Whether a forward hook, global or the module's own, receives the keyword arguments."""
    return (
        hook_id in self.__dict__["_forward_hooks_with_kwargs"]
        or hook_id in process["_global_forward_hooks_with_kwargs"]
    )


def run_always(self: Module, args: Any, kwargs: Any, output: Any, begun: Collection[int]) -> None:
    """Run the `always_call` hooks that have not begun after an exception; their own exceptions become PyTorch's
    warnings.

    Global ones are called without kwargs even if they were registered with them, because PyTorch does so.
    """
    kinds = (
        ("global module", process["_global_forward_hooks"], process["_global_forward_hooks_always_called"], ()),
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
    """The (args, kwargs) that the result of a forward pre-hook means."""
    if not with_kwargs:
        return (result if isinstance(result, tuple) else (result,)), kwargs
    if isinstance(result, tuple) and len(result) == 2:
        return result
    raise RuntimeError(f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {result}.")


def decide(self: Module) -> None:
    """Sort the module's hooks and the global ones into a plan that is valid until they change, if changes of the hook
    dicts are noticed."""
    with dicts_lock:
        wiring = wire(self)
        if wiring is None or self._compiled_call_impl is not None:  # set by another thread meanwhile
            return
        if not notice_changes():
            own = self._forward_pre_hooks or self._forward_hooks or has_backward_hooks(self)
            wiring.plan = HookPlan((), (), (), run_undecided if own else run_beside_global_hooks)
            return
        before = tuple(
            (hook_id, hook, hook_id in self._forward_pre_hooks_with_kwargs)
            for hooks in (process["_global_forward_pre_hooks"], self._forward_pre_hooks)
            for hook_id, hook in hooks.items()
        )
        after = tuple(
            (hook_id, hook, takes_kwargs(self, hook_id))
            for hooks in (process["_global_forward_hooks"], self._forward_hooks)
            for hook_id, hook in hooks.items()
        )
        always = {*process["_global_forward_hooks_always_called"], *self._forward_hooks_always_called}
        gradients = BackwardHooks(self) if has_backward_hooks(self) else None
        run: Callable[..., Any] | None
        if gradients is not None:
            run = run_undecided if gradients.full or before or after else run_legacy(self, gradients)
        elif not before and not any(with_kwargs or hook_id in always for hook_id, _, with_kwargs in after):
            run = None
        else:
            run = run_few(before, after) if len(before) <= 1 and len(after) <= 1 else run_many
        plain = tuple(hook for _, hook, _ in after)
        wiring.plan = HookPlan(before, after, plain, run)


def _is_its_own(self: Module) -> bool:
    """Whether PyTorch's call is to be used: the module has its own `_call_impl`, or lacks hook dicts, for which
    PyTorch raises its own error."""
    namespace = self.__dict__
    return type(self)._call_impl is not PYTORCHS_CALL_IMPL or "_call_impl" in namespace or not namespace.keys() >= NAMES


begin_no_graph(globals())
