"""Selection: some modules of a model, as a value that can be narrowed, counted and shown before it is used."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from torch.nn import Module

from hookline.errors import ArgumentError, ArgumentTypeError, SelectionError
from hookline.model.paths import paths, walk
from hookline.model.uncalled import warn_of_uncalled

if TYPE_CHECKING:
    from hookline.model.console import Console

Named: TypeAlias = list[tuple[Module, tuple[str, ...]]]  # the result of `paths`
WILDCARD = re.compile(r"(\*|\?|\[[^\]]+\])")


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Some modules of one model by path, each once, in the order of the model.

    `a & b`, `a | b` and `a - b` combine two selections, or a selection and anything that `select` takes.
    """

    model: Module
    modules: dict[str, Module]
    aliases: dict[str, str]

    def __len__(self) -> int:
        return len(self.modules)

    def __iter__(self) -> Iterator[tuple[str, Module]]:
        return iter(self.modules.items())

    def __contains__(self, item: object) -> bool:
        if isinstance(item, Module):
            return any(module is item for module in self.modules.values())
        return self.aliases.get(str(item), item) in self.modules

    def __and__(self, other: "Where") -> "Selection":
        kept = self._of_same_model(other).modules
        return self._with(path for path in self.modules if path in kept)

    def __or__(self, other: "Where") -> "Selection":
        added = self._of_same_model(other).modules
        return self._with({**self.modules, **added})

    def __sub__(self, other: "Where") -> "Selection":
        dropped = self._of_same_model(other).modules
        return self._with(path for path in self.modules if path not in dropped)

    @property
    def paths(self) -> list[str]:
        """The dotted paths in the order of the model; the model itself is ""."""
        return [*self.modules]

    @property
    def counts(self) -> dict[str, int]:
        """The number of modules of each class, the most frequent first."""
        names = [type(module).__name__ for module in self.modules.values()]
        return dict(sorted(((name, names.count(name)) for name in dict.fromkeys(names)), key=lambda pair: -pair[1]))

    def show(self, *, console: "Console | None" = None) -> "Selection":
        """Print the selected paths with their classes and parameter counts; returns the selection itself."""
        from hookline.model.console import (
            Column,
            Console,  # costs more to import than all of this file
            Table,
            Text,
        )

        title = Text(repr(self)[1:-1], style="table.title")
        table = Table("path", "class", Column("parameters", justify="right"), title=title)
        for path, module in self:
            count = f"{_parameter_count(module):,}"
            table.add_row(Text(path or "(the model)"), Text(type(module).__name__), count)
        (console or Console()).print(table)
        return self

    def __repr__(self) -> str:
        kinds = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        return f"<Selection of {len(self)} modules in {type(self.model).__name__}: {kinds or 'none'}>"

    def _of_same_model(self, other: "Where") -> "Selection":
        if isinstance(other, Selection):
            if other.model is not self.model:
                raise SelectionError("these selections are of two models; make both with select() on one model")
            return other
        return select(self.model, other)

    def _with(self, chosen: Iterable[str]) -> "Selection":
        wanted = set(chosen)
        return _selection(self.model, paths(self.model), wanted)


Where: TypeAlias = (
    str
    | re.Pattern[str]
    | type[Module]
    | Module
    | Callable[[str, Module], bool]
    | list[Any]
    | tuple[Any, ...]
    | Selection
)
"""Modules of a model: a glob over their paths, a compiled regex, a module class, a module, a predicate of path and
module, a Selection, or several of these in a list or tuple. `select` describes each."""


def select(model: Module, *where: Where) -> Selection:
    """Select the modules of `model` that any of `where` picks; without `where`, all of them.

    Each `where` is
    - a glob over dotted paths: `*` matches a name or part of one, `**` any number of names, "" the model itself, and
      `?`, `[ab]`, `[!ab]` one character;
    - a compiled regular expression, which must match the whole path;
    - a module class, which picks its instances and those of subclasses;
    - a module of the model;
    - a predicate `(path, module) -> bool`;
    - a list of these, or another Selection of the same model.

    A shared module is selected once, under its first path, whichever of its paths matches.

    Raises SelectionError if one of them picks nothing (with the nearest paths) or cannot be read. Warns if one picks
    only modules that are never called, such as the `out_proj` of `nn.MultiheadAttention`.

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))
    >>> select(model, "1.*").paths
    ['1.0', '1.1']
    >>> (select(model, nn.Linear) - "1.**").paths
    ['0']
    >>> select(model, "**") & nn.ReLU
    <Selection of 1 modules in Sequential: 1 ReLU>
    """
    named = paths(model)
    chosen: set[str] = set()
    for item in where or ("**",):
        picked = _picked(model, named, item)
        if not isinstance(item, Selection):
            warn_of_uncalled(named, picked)
        chosen |= picked

    return _selection(model, named, chosen)


def refuse_path_as_input(tool: str, model: Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise ArgumentError if the only input is a path or glob of modules, which was meant as `where`."""
    if len(args) != 1 or kwargs or not isinstance(args[0], str):
        return
    own = [path for _, known in paths(model) for path in known]
    expression = glob_to_regex(args[0])
    if any(path and expression.fullmatch(path) for path in own):
        raise ArgumentError(
            f"{args[0]!r} is a path of modules, but {tool} takes the model's inputs there: write where={args[0]!r}, "
            f"after the inputs: {tool}(model, x, where={args[0]!r})"
        )


def glob_to_regex(pattern: str) -> re.Pattern[str]:
    """The regular expression for a path glob: `*` is a name or part of one, `?` one character, `[ab]` and `[!ab]` one
    character that is or is not in a set, and `**` any number of names.

    Any number includes none: "layer.**" matches `layer` and everything below it. Raises SelectionError for an invalid
    set, such as "[9-0]".

    >>> glob = glob_to_regex("layer.**.query")
    >>> [bool(glob.fullmatch(path)) for path in ("layer.query", "layer.0.self.query", "layer.0")]
    [True, True, False]
    """
    names = pattern.split(".")
    names = [name for name, above in zip(names, ["", *names], strict=False) if not name == above == "**"]
    if names == ["**"]:
        return re.compile(".*")
    expression = ""
    for place, name in enumerate(names):
        last = place == len(names) - 1
        if name != "**":
            expression += _name_regex(name) + ("" if last else r"\.")
        elif last:
            expression = expression.removesuffix(r"\.") + r"(?:\.[^.]+)*"
        else:
            expression += r"(?:[^.]+\.)*"
    try:
        return re.compile(expression)
    except re.error as error:
        raise SelectionError(
            f"cannot read the glob {pattern!r}: {error.msg}; a set is [ab], [a-z], or [!ab] for all but these"
        ) from error


def _name_regex(name: str) -> str:
    """The expression for one name of a glob. A name has at least one character, even if it is "*"."""
    return "(?=[^.])" + "".join(map(_part_regex, WILDCARD.split(name))) if name else ""


def _part_regex(part: str) -> str:
    if not WILDCARD.fullmatch(part):
        return re.escape(part)
    if part in ("*", "?"):
        return "[^.]*" if part == "*" else "[^.]"
    negated = part.startswith("[!") and part != "[!]"
    inside = re.escape(part[2 if negated else 1 : -1]).replace(r"\-", "-")
    return rf"(?!\.)[{'^' if negated else ''}{inside}]"


def _parameter_count(module: Module) -> int:
    """The number of elements of the parameters of a module, each counted once."""
    found = {id(parameter): parameter for _, part in walk(module) for parameter in part._parameters.values()}
    return sum(parameter.numel() for parameter in found.values() if parameter is not None)


def _selection(model: Module, named: Named, chosen: set[str]) -> Selection:
    aliases = {alias: own[0] for _, own in named for alias in own[1:]}
    return Selection(model, {own[0]: module for module, own in named if own[0] in chosen}, aliases)


def _picked(model: Module, named: Named, where: Any) -> set[str]:
    """The first paths of the modules that one `where` picks; an error if there are none."""
    if isinstance(where, list | tuple):
        if not where:
            raise SelectionError(f"an empty {type(where).__name__} picks nothing; leave it out to pick every module")
        return set().union(*(_picked(model, named, item) for item in where))
    if isinstance(where, Selection):
        if where.model is not model:
            raise SelectionError("this Selection is of another model; call select() on this model")
        return set(where.modules)

    if isinstance(where, str) and where == "**":
        return {own[0] for _, own in named}
    if isinstance(where, str) and where and not WILDCARD.search(where):
        picked = {own[0] for _, own in named if where in own}
    else:
        matches = _matcher(where)
        picked = {own[0] for module, own in named if any(matches(path, module) for path in own)}
    if not picked:
        raise SelectionError(_nothing_picked(model, named, where))
    return picked


def _matcher(where: Any) -> Callable[[str, Module], bool]:
    if isinstance(where, str):
        expression = glob_to_regex(where)
        return lambda path, module: expression.fullmatch(path) is not None
    if isinstance(where, re.Pattern):
        return lambda path, module: where.fullmatch(path) is not None
    if isinstance(where, type):
        return lambda path, module: isinstance(module, where)
    if isinstance(where, Module):
        return lambda path, module: module is where
    if callable(where):
        return lambda path, module: bool(where(path, module))
    raise ArgumentTypeError(
        "where must be a glob such as 'encoder.*', a compiled regex, a module class, a module, a predicate "
        f"(path, module), or a list of these, not {where!r}"
    )


def _nothing_picked(model: Module, named: Named, where: Any) -> str:
    name = type(model).__name__
    every = [path for _, own in named for path in own if path]
    if isinstance(where, str | re.Pattern):
        pattern = where if isinstance(where, str) else where.pattern
        return f"{pattern!r} matches none of the {len(named)} modules of {name}; {_near(pattern, every)}"
    if isinstance(where, type):
        classes = sorted({type(module).__name__ for module, _ in named})
        return f"{name} has no module of class {where.__name__}; it has {', '.join(classes)}"
    if isinstance(where, Module):
        this = type(where).__name__
        return f"this {this} is not a module of {name}; select by path, or pass the model that holds it"
    predicate = getattr(where, "__qualname__", where)
    return f"the predicate {predicate} is true for none of the {len(named)} modules of {name}"


def _near(pattern: str, every: list[str]) -> str:
    close = difflib.get_close_matches(pattern, every, n=3, cutoff=0.5)
    last = pattern.rsplit(".", 1)[-1].strip("*")
    close += [path for path in every if last and last in path and path not in close][: 3 - len(close)]
    if close:
        return f"nearest: {', '.join(close)}"
    return f"its paths begin {', '.join(every[:3])}" if every else "it has no children; its own path is ''"
