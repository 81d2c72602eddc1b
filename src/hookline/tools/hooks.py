"""hooks: list every hook on a model, whoever added it, and what libraries put in the place of its code."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch.jit import ScriptModule
from torch.nn import Module
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm

from hookline.engine.attach import detach
from hookline.engine.compiled import compiled_call_of
from hookline.engine.global_hooks import process
from hookline.engine.hook import Handle, Hook, place_of
from hookline.engine.scope import open_hooks
from hookline.engine.site import site_of
from hookline.errors import AttachError
from hookline.model.paths import paths
from hookline.result import Result
from hookline.store.codec import Schema
from hookline.store.folder import write
from hookline.store.members import expect_object, listed, maybe, member, number, text

EVERY_MODULE = "(every module)"
KINDS = {
    "forward_pre_hooks": "forward pre",
    "forward_hooks": "forward",
    "backward_pre_hooks": "backward pre",
    "backward_hooks": "backward",
    "state_dict_pre_hooks": "state dict pre",
    "state_dict_hooks": "state dict",
    "load_state_dict_pre_hooks": "load state dict pre",
    "load_state_dict_post_hooks": "load state dict post",
    "buffer_registration_hooks": "buffer registration",
    "module_registration_hooks": "module registration",
    "parameter_registration_hooks": "parameter registration",
}
OWNERS = {
    "accelerate": "accelerate",
    "torch.distributed": "FSDP",
    "torch.nn.utils.weight_norm": "weight norm",
    "torch.nn.utils.spectral_norm": "spectral norm",
    "torch.nn.utils.prune": "pruning",
}
NORMS = {"WeightNorm": remove_weight_norm, "SpectralNorm": remove_spectral_norm}
FORWARD_REPLACED = "forward replaced"


@dataclass(frozen=True)
class HookInfo:
    """One hook, or what a library put in the place of a module's forward, class or parameter.

    - `path`: the module's path, "" for the model itself, "(every module)" for a global hook;
    - `kind`: "forward pre", "forward", "backward pre", "backward" and the like for hooks of PyTorch's API; the phase
      for hooks of hookline; "forward replaced", "parametrization", "class", "compiled call";
    - `owner`: "PyTorch", "hookline", or the library that added it, where that is known;
    - `order`: 0, 1, 2 in the order in which hooks of PyTorch's API run; for hooks of hookline their `order`;
    - `name`, `defined`: the function's name, and the file and line where it is defined;
    - `added`: the file and line that added it, known for hooks of hookline;
    - `flags`: "kwargs", "always".
    """

    path: str
    kind: str
    owner: str
    order: float | None
    name: str
    defined: str
    added: str = ""
    flags: tuple[str, ...] = ()
    undo: Handle | None = field(default=None, repr=False, compare=False)

    def remove(self) -> None:
        """Remove it; twice is harmless. Raises AttachError if it cannot be removed."""
        if self.undo is None:
            raise AttachError(f"{self.name} on {self.path or 'the model'} ({self.owner}) cannot be removed")
        self.undo.remove()


HOOK = Schema(
    HookInfo,
    {
        **{"path": text, "kind": text, "owner": text, "order": maybe(number), "name": text, "defined": text},
        **{"added": text, "flags": listed(text)},
    },
)


class Hooks(Result[HookInfo]):
    """Every hook on a model, in the order of its modules; prints as a table.

    `hooks["encoder"]` is the first hook on a module, `hooks["encoder", 1]` the next one, `hooks[0]` the first of all.
    Hooks that were saved and loaded again can be read, not removed.
    """

    noun = "hooks"
    entry = "hook"
    columns = (*HOOK.members,)

    def __init__(self, model: str, found: Iterable[HookInfo]) -> None:
        self.model = model
        self.found = tuple(found)

    def _entries(self) -> Sequence[HookInfo]:
        return self.found

    def _row(self, entry: HookInfo, /) -> Mapping[str, Any]:
        return {name: getattr(entry, name) for name in self.columns}

    @property
    def summary(self) -> str:
        """How many hooks each owner has, in a line."""
        counts = Counter(hook.owner for hook in self)
        told = ", ".join(f"{count} of {owner}" for owner, count in counts.items())
        return f"{self.model}: {told or 'no hooks'}"

    def to_dict(self) -> dict[str, Any]:
        """The hooks as plain data that JSON can hold."""
        return {"model": self.model, "hooks": [HOOK.write(hook) for hook in self]}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the list to a folder, whole or not at all; replace hooks saved there before. Raises StoreError if the
        folder holds something else."""
        write(folder, self.to_dict(), {}, kind=self.noun)


def decode(document: Any, _: object = None) -> Hooks:
    """The hooks in a document; raises MemberError if it holds none."""
    expect_object(document, frozenset(("model", "hooks")))
    return Hooks(member(document, "model", text), member(document, "hooks", listed(HOOK.read)))


def hooks(model: Module) -> Hooks:
    """List every hook on a model and its modules, and the global ones: owner, kind, order, and where its function is
    defined; for hooks of hookline also where they were added.

    The list also has a `forward` that was replaced on an instance (as accelerate does), parametrizations, FSDP's
    classes, what `Module.compile()` left, weight and spectral norm, and hooks on parameters. Each entry has `remove()`.
    Listing changes nothing.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    >>> _ = model[0].register_forward_hook(lambda module, args, output: None)
    >>> found = hookline.hooks(model)
    >>> [(hook.path, hook.kind, hook.owner) for hook in found]
    [('0', 'forward', 'PyTorch')]
    >>> found[0].remove()
    >>> len(hookline.hooks(model))
    0
    """
    found = [*_torch_hooks(EVERY_MODULE, None, process, "_global_"), *_scoped_hooks()]
    for module, own_paths in paths(model):
        path, namespace = own_paths[0], module.__dict__
        found += _own_hooks(path, module)
        found += _swaps(path, module)
        found += _torch_hooks(path, module, namespace, "_")
        found += _parameter_hooks(path, module)
    return Hooks(type(model).__name__, found)


def _torch_hooks(path: str, module: Module | None, namespace: dict[str, Any], prefix: str) -> Iterator[HookInfo]:
    for name, kind in KINDS.items():
        place = namespace.get(prefix + name)
        flags = {
            flag: namespace.get(f"{prefix}{name}_{suffix}", ())
            for flag, suffix in (("kwargs", "with_kwargs"), ("always", "always_called"))
        }
        for order, (key, hook) in enumerate((place or {}).items()):
            dicts = [place, *(held for held in flags.values() if held)]
            yield _info(
                path,
                _backward_kind(kind, module, namespace),
                hook,
                order=order,
                flags=tuple(flag for flag, held in flags.items() if key in held),
                undo=_undo(module, hook, partial(_drop, dicts, key)),
            )


def _backward_kind(kind: str, module: Module | None, namespace: dict[str, Any]) -> str:
    full = namespace.get("_is_full_backward_hook" if module is not None else "_global_is_full_backward_hook")
    return "backward (legacy)" if kind == "backward" and full is False else kind


def _undo(module: Module | None, hook: Any, drop: Callable[[], None]) -> Handle | None:
    """How a hook of PyTorch's API is removed: with its parameters, if it belongs to a norm or to pruning; None for the
    hook of a lazy module, which needs it."""
    if module is None:
        return Handle(drop)
    norm = NORMS.get(type(hook).__name__)
    if norm is not None:
        return Handle(partial(_call, norm, module, hook.name))
    if isinstance(hook, prune.BasePruningMethod):
        return Handle(partial(_call, prune.remove, module, hook._tensor_name))
    if getattr(_function(hook), "__module__", None) == "torch.nn.modules.lazy":
        return None
    return Handle(drop)


def _own_hooks(path: str, module: Module) -> Iterator[HookInfo]:
    site = site_of(module)
    for hook in site.hooks if site is not None else ():
        yield _hook_info(path, hook, Handle(partial(detach, module, hook)))


def _scoped_hooks() -> Iterator[HookInfo]:
    for hook in open_hooks():
        yield _hook_info(EVERY_MODULE, hook, None)  # the end of its block removes it


def _hook_info(path: str, hook: Hook, undo: Handle | None) -> HookInfo:
    return HookInfo(
        path=path,
        kind=hook.phase,
        owner="hookline",
        order=hook.order,
        name=hook.name,
        defined=place_of(hook.function),
        added=hook.added,
        undo=undo,
    )


def _swaps(path: str, module: Module) -> Iterator[HookInfo]:
    """What stands in the place of the module's own class, forward, call or parameters."""
    namespace = module.__dict__
    if "_hf_hook" in namespace:
        undo = Handle(partial(_remove_accelerates, module))
        yield _info(path, FORWARD_REPLACED, namespace["_hf_hook"], undo=undo)
    elif type(module).__name__ == "OptimizedModule":
        yield HookInfo(path, "compiled", "torch.compile", None, "torch.compile()", "")
    elif (
        "forward" in namespace
        and not isinstance(module, ScriptModule)
        and not _is_that_of_its_class(namespace["forward"], module)
    ):
        undo = Handle(partial(_drop, [namespace], "forward"))
        written = place_of(namespace["forward"], wrapped=False)
        yield _info(path, FORWARD_REPLACED, namespace["forward"], undo=undo, defined=written)
    if compiled_call_of(module) is not None:
        undo = Handle(partial(setattr, module, "_compiled_call_impl", None))
        yield HookInfo(path, "compiled call", "torch.compile", None, "Module.compile()", "", undo=undo)
    if any(base.__name__ == "FSDPModule" for base in type(module).__mro__):
        yield HookInfo(path, "class", "FSDP", None, module.__class__.__name__, "")
    if parametrize.is_parametrized(module):
        for name, chain in module.parametrizations.items():  # type: ignore[operator, union-attr]
            kinds = ", ".join(type(step).__name__ for step in chain)
            undo = Handle(partial(_remove_parametrization, module, name))
            yield HookInfo(path, "parametrization", "PyTorch", None, f"{kinds} of {name}", "", undo=undo)


def _is_that_of_its_class(forward: Any, module: Module) -> bool:
    """Whether the forward that an instance holds is the bound forward of its class; a scripted one counts as such."""
    return isinstance(module, ScriptModule) or getattr(forward, "__func__", forward) is getattr(
        type(module), "forward", None
    )


def _remove_accelerates(module: Module) -> None:
    from accelerate.hooks import remove_hook_from_module  # type: ignore[import-untyped]

    remove_hook_from_module(module)


def _remove_parametrization(module: Module, name: str) -> None:
    if parametrize.is_parametrized(module, name):
        parametrize.remove_parametrizations(module, name)


def _parameter_hooks(path: str, module: Module) -> Iterator[HookInfo]:
    for name, parameter in module._parameters.items():
        for held, kind in (("_backward_hooks", "gradient"), ("_post_accumulate_grad_hooks", "accumulated gradient")):
            place: Any = getattr(parameter, held, None)
            for order, (key, hook) in enumerate(place.items() if place else ()):
                yield _info(path, f"{kind} of {name}", hook, order=order, undo=Handle(partial(_drop, [place], key)))


def _info(path: str, kind: str, hook: Any, **more: Any) -> HookInfo:
    function = _function(hook)
    source = getattr(function, "__module__", None) or type(function).__module__
    owner = next((owner for start, owner in OWNERS.items() if source.startswith(start)), "PyTorch")
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return HookInfo(
        path=path, kind=kind, owner=owner, name=name, **{"order": None, "defined": place_of(function), **more}
    )


def _function(hook: Any) -> Any:
    """The function as its author wrote it, for a hook that PyTorch or functools wrapped."""
    function = hook.hook if type(hook).__name__ == "_WrappedHook" else hook
    while isinstance(function, partial):
        function = function.func
    return function


def _call(function: Callable[..., object], *given: Any) -> None:
    function(*given)


def _drop(dicts: list[MutableMapping[Any, Any]], key: Any) -> None:
    for held in dicts:
        held.pop(key, None)
