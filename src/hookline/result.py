"""Result: the base of everything that a tool returns, and the door to the renderers that show it."""

import json
import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, SupportsIndex, TypeVar, overload

from hookline.errors import RecordError
from hookline.messages import counted

if TYPE_CHECKING:
    import pandas


class Entry(Protocol):
    """One part of a result: it belongs to a module."""

    @property
    def path(self) -> str:
        """The module's path, "" for the model itself."""


E_co = TypeVar("E_co", bound=Entry, covariant=True)
R = TypeVar("R")


class Result(ABC, Generic[E_co]):
    """What a tool returns: entries in order, each of one module. Every result has the same faces.

    - `result[path]`: the first entry of a module (of a profile, all of its calls together); `result[path, i]`: its
      entry number `i`, which is the call's index where an entry is a call, negative numbers from the last;
    - `result[i]`: the entry at a place, a slice gives a tuple; iteration and `len` go over all entries; `in` takes a
      path or an entry;
    - `bool(result)`: whether something was found: calls, costs, cells, hooks; in findings something above a note; in a
      diff a difference;
    - `summary`: the result in a line or two of text; printed it is a table, in a notebook a table or a page;
    - `save(folder)`, read by `hookline.load`; `page(file)`, `to_dict()`, `to_json()`, `to_pandas()`.

    A path that a result does not have raises RecordError with the nearest paths.

    >>> import torch, hookline
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    >>> with hookline.watch(model) as run:
    ...     _ = model(torch.ones(1, 2))
    >>> run["0"].type, run[0].type, len(run), "1" in run
    ('Linear', 'Sequential', 3, True)
    >>> hookline.hooks(model).summary
    'Sequential: no hooks'
    """

    __slots__ = ()

    noun: ClassVar[str]  # what the result is called in errors, and the name of its document
    entry: ClassVar[str]  # what one of its entries is called
    columns: ClassVar[Sequence[str]]  # of the table that `to_pandas` gives

    # What each result says for itself

    @property
    @abstractmethod
    def summary(self) -> str:
        """The result in a line or two of text."""

    @abstractmethod
    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the result to a folder, whole or not at all; a result of the same kind that is there is replaced.

        Raises StoreError where the folder holds something else or cannot be written.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The result as plain data that JSON can hold: numbers that are not finite are text."""

    @abstractmethod
    def _entries(self) -> Sequence[E_co]:
        """Every entry, in order."""

    @abstractmethod
    def _row(self, entry: Any, /) -> Mapping[str, Any]:
        """A value for each of `columns`."""

    # What may be said otherwise

    def _of(self, path: str) -> Mapping[int, E_co]:
        """The entries of one module by number, in order; empty where there is none."""
        return dict(enumerate(entry for entry in self._entries() if entry.path == path))

    def _whole(self, path: str, own: Mapping[int, E_co]) -> E_co:
        """What `result[path]` is, of the entries of that module."""
        return next(iter(own.values()))

    def _paths(self) -> Iterable[str]:
        """The paths that an error about a missing one can name."""
        return dict.fromkeys(entry.path for entry in self._entries())

    def _why_empty(self, path: str) -> str | None:
        """Why a module that the result knows has no entry; None of a module that it does not know."""
        return None

    # Looking up

    @overload
    def __getitem__(self, key: int | str | tuple[str, int]) -> E_co: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[E_co, ...]: ...
    def __getitem__(self, key: Any) -> Any:
        match key:
            case str(path):
                return self._whole(path, self._known(path))
            case (str(path), SupportsIndex() as number):
                return self._numbered(path, operator.index(number))
            case slice():
                return tuple(self._entries()[key])
            case SupportsIndex():
                return self._at(operator.index(key))
        raise RecordError(
            f"{self.noun}[{key!r}] looks up nothing: {self.noun}['path'] is the first {self.entry} of a module, "
            f"{self.noun}['path', 2] its third, {self.noun}[0] the first of all"
        )

    def _known(self, path: str) -> Mapping[int, E_co]:
        own = self._of(path)
        if own:
            return own
        why = self._why_empty(path)
        if why is None:
            near = get_close_matches(path, [*self._paths()], n=3, cutoff=0.4)
            why = f"is not in the {self.noun}{'; nearest: ' + ', '.join(near) if near else ''}"
        raise RecordError(f"{path!r} {why}")

    def _numbered(self, path: str, number: int) -> E_co:
        own = self._known(path)
        found = own.get(number) if number >= 0 else dict(enumerate(own.values(), start=-len(own))).get(number)
        if found is None:
            raise RecordError(f"{path!r} has {counted(len(own), self.entry)} in the {self.noun}, and none at {number}")
        return found

    def _at(self, place: int) -> E_co:
        entries = self._entries()
        if not -len(entries) <= place < len(entries):
            raise IndexError(f"the {self.noun} has {counted(len(entries), self.entry)}, and none at {place}")
        return entries[place]

    def __contains__(self, thing: object) -> bool:
        return bool(self._of(thing)) if isinstance(thing, str) else thing in self._entries()

    def __iter__(self) -> Iterator[E_co]:
        return iter(self._entries())

    def __len__(self) -> int:
        return len(self._entries())

    def __bool__(self) -> bool:
        return bool(self._entries())

    # Exporting and showing

    def to_json(self) -> str:
        """What `to_dict` gives, as the text of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_pandas(self) -> "pandas.DataFrame":
        """A data frame with a row for each entry.

        Raises ImportError where pandas is missing: `pip install 'hookline[data]'`.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas() needs pandas: pip install 'hookline[data]'") from error
        return pandas.DataFrame([self._row(entry) for entry in self._entries()], columns=[*self.columns])

    def page(self, file: str | os.PathLike[str]) -> Path:
        """Write the result as a page, one HTML file for a browser that loads nothing else, and return its path.

        Raises StoreError where it cannot be written.
        """
        return self._write("page", file)

    def _write(self, form: str, file: str | os.PathLike[str]) -> Path:
        """Write the result to a file in a form that its renderer knows."""
        renderer_of(self).files[form](self, file)
        return Path(file)

    def _table(self, form: str, *more: Any) -> Any:
        """The result as another table that its renderer knows."""
        return renderer_of(self).tables[form](self, *more)

    def __repr__(self) -> str:
        return renderer_of(self).text(self)

    def __rich__(self) -> Any:
        return renderer_of(self).table(self)

    def _repr_html_(self) -> str:
        return renderer_of(self).html(self)


@dataclass(frozen=True, slots=True)
class Renderer(Generic[R]):
    """How one kind of result is shown.

    - `table`: what rich prints; `text`: the same as plain text; `html`: what a notebook shows;
    - `files`: writers of files, by form: "page", and others that the result offers; `tables`: other tables, by form.
    """

    table: Callable[[R], Any]
    text: Callable[[R], str]
    html: Callable[[R], str]
    files: Mapping[str, Callable[[R, str | os.PathLike[str]], None]] = field(default_factory=dict)
    tables: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


def renderer_of(result: Result[Any]) -> Renderer[Any]:
    """The renderer of a result. `report` stands above every result and is imported when the first one is shown: this is
    the only import that goes up. Rich costs more to import than the rest of hookline."""
    from hookline.report.renderers import RENDERERS

    return next(RENDERERS[kind] for kind in type(result).__mro__ if kind in RENDERERS)
