"""Modules and their dotted paths."""

import weakref
from collections.abc import Callable, Iterable, Iterator

from torch.nn import Module

from hookline.errors import ArgumentTypeError

# The names under which wrappers hold the wrapped model: DistributedDataParallel and DataParallel, torch.compile,
# FullyShardedDataParallel, activation checkpointing of torch.distributed.
WRAPPED_AS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
DATA_PARALLEL = frozenset({"DistributedDataParallel", "DataParallel"})


def walk(model: Module) -> Iterator[tuple[str, Module]]:
    """Every (path, module) in `model`, itself included, parents first; a shared module once for each of its paths.

    Paths are those of `Module.named_modules` without the names that wrappers add (`module.` of DistributedDataParallel,
    `_orig_mod.` of torch.compile, `_fsdp_wrapped_module.`), so that a wrapped model has the paths of the bare one. The
    model itself has the path "". A module that contains itself is entered once on each path.

    >>> from torch import nn
    >>> [path for path, _ in walk(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU())))]
    ['', '0', '1', '1.0']
    """
    stack: list[tuple[str, Module, tuple[int, ...]]] = [("", model, ())]
    while stack:
        path, module, ancestors = stack.pop()
        yield path, module

        children = module._modules
        if not children or id(module) in ancestors:
            continue
        below = (*ancestors, id(module))
        above = f"{path}." if path else ""
        for name, child in reversed([*children.items()]):
            if child is not None:
                stack.append((path if name in WRAPPED_AS and _wraps(module, name) else above + name, child, below))


def paths(model: Module) -> list[tuple[Module, tuple[str, ...]]]:
    """Every module of `model` once with all its paths, in the order of `walk`; the first path is its name.

    Modules are compared by identity, because a class may define equality or have no hash. Raises ArgumentTypeError if
    `model` is not a module.

    >>> from torch import nn
    >>> shared = nn.ReLU()
    >>> paths(nn.Sequential(shared, nn.Flatten(), shared))[1:]
    [(ReLU(), ('0', '2')), (Flatten(start_dim=1, end_dim=-1), ('1',))]
    """
    if not isinstance(model, Module):
        raise ArgumentTypeError(f"expected a torch.nn.Module, not {type(model).__name__}")
    found: dict[int, tuple[Module, tuple[str, ...]]] = {}
    for path, module in walk(model):
        key = id(module)
        if key not in found:
            found[key] = module, (path,)
        elif path not in found[key][1]:
            found[key] = module, (*found[key][1], path)
    return [*found.values()]


class PathTable:
    """The paths of the modules that a tool selected, and of the other modules of `model` if it is passed.

    It refers to modules weakly, since a module may be deleted from its model while it is watched.
    """

    __slots__ = ("_known", "_others", "model", "paths", "references")

    def __init__(self, modules: Iterable[tuple[str, Module]], model: Module | None = None) -> None:
        self.model = None if model is None else weakref.ref(model)
        self.paths: list[str] = []
        self.references: list[weakref.ref[Module]] = []
        for path, module in modules:
            self.paths.append(path)
            self.references.append(weakref.ref(module))
        self._known: dict[int, tuple[weakref.ref[Module], str]] | None = None  # built on first use
        self._others: PathTable | None = None  # likewise

    def __iter__(self) -> Iterator[Module]:
        """The modules that still exist."""
        found = (reference() for reference in self.references)
        return (module for module in found if module is not None)

    def __contains__(self, module: Module) -> bool:
        return module is self._place(module)[0]()

    def _place(self, module: Module) -> tuple[Callable[[], Module | None], str]:
        known = self._known
        if known is None:
            known = {}
            for reference, path in zip(self.references, self.paths, strict=True):
                own = reference()
                if own is not None:
                    known.setdefault(id(own), (reference, path))
            self._known = known
        return known.get(id(module), (lambda: None, ""))

    def path_of(self, module: Module, otherwise: str) -> str:
        """The path of a module, or `otherwise` for a module that is not in the model, such as a replica.

        >>> from torch import nn
        >>> model = nn.Sequential(nn.ReLU())
        >>> table = PathTable(walk(model))
        >>> table.path_of(model[0], "?"), table.path_of(nn.ReLU(), "?")
        ('0', '?')
        """
        own, path = self._place(module)
        if own() is module:
            return path
        model = None if self.model is None else self.model()
        if model is None:
            return otherwise
        if self._others is None:
            self._others = PathTable(walk(model))
        return self._others.path_of(module, otherwise)


def outermost(model: Module, wanted: Callable[[Module], bool]) -> list[Module]:
    """The wanted modules that are not inside another wanted module, the model itself included.

    >>> from torch import nn
    >>> outermost(nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU())), lambda module: isinstance(module, nn.ReLU))
    [ReLU(), ReLU()]
    """
    found, left, seen = [], [model], set()
    while left:
        module = left.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        if wanted(module):
            found.append(module)
        elif module._modules:
            left += [child for child in reversed(module._modules.values()) if child is not None]
    return found


def _wraps(parent: Module, name: str) -> bool:
    """Whether a child with one of these names is a wrapped model."""
    return name != "module" or type(parent).__name__ in DATA_PARALLEL
