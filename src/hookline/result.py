"""Result: the base class of everything that a tool returns, and the lookup of the renderer that shows it."""

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
from hookline.messages import counted, encodable

if TYPE_CHECKING:
    import pandas


class Entry(Protocol):
    """One entry of a result, which belongs to a module."""

    @property
    def path(self) -> str:
        """The module's path, "" for the model itself."""


E_co = TypeVar("E_co", bound=Entry, covariant=True)
R = TypeVar("R")


class Result(ABC, Generic[E_co]):
    """What a tool returns: a sequence of entries, each of one module. Every result has the same interface.

    - `result[path]`: the first entry of a module; in a profile, all of its calls together;
    - `result[path, i]`: entry `i` of a module, which for calls is the index of the call; negative from the last;
    - `result[i]`: an entry by position; a slice returns a tuple;
    - `len(result)`, iteration: over all entries;
    - `x in result`: takes a path or an entry;
    - `bool(result)`: whether it has entries; for findings, whether one is above a note; for a diff, whether anything
      differs;
    - `summary`: the result in a line or two; `print` shows a table, a notebook a table or a page;
    - `save(folder)`: writes it for `hookline.load`;
    - `page(file)`, `to_dict()`, `to_json()`, `to_pandas()`: exports.

    An unknown path raises RecordError with the nearest paths.

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

    noun: ClassVar[str]  # the name of the result in errors, and of its document
    entry: ClassVar[str]  # the name of an entry in errors
    columns: ClassVar[Sequence[str]]  # the columns of `to_pandas`

    # What each result must define

    @property
    @abstractmethod
    def summary(self) -> str:
        """The result in a line or two of text."""

    @abstractmethod
    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the result to a folder, whole or not at all; a result of the same kind there is replaced.

        Raises StoreError where the folder holds something else or cannot be written.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The result as plain data for JSON; numbers that are not finite are text."""

    @abstractmethod
    def _entries(self) -> Sequence[E_co]:
        """Every entry, in order."""

    @abstractmethod
    def _row(self, entry: Any, /) -> Mapping[str, Any]:
        """A value for each of `columns`."""

    # What a result may define

    def _of(self, path: str) -> Mapping[int, E_co]:
        """The entries of one module by number, in order; empty without any."""
        return dict(enumerate(entry for entry in self._entries() if entry.path == path))

    def _whole(self, path: str, own: Mapping[int, E_co]) -> E_co:
        """The value of `result[path]`, from the entries of that module."""
        return next(iter(own.values()))

    def _paths(self) -> Iterable[str]:
        """The paths that an error about an unknown path may suggest."""
        return dict.fromkeys(entry.path for entry in self._entries())

    def _why_empty(self, path: str) -> str | None:
        """Why a known module has no entry; None for an unknown module."""
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
            f"{key!r} is not a key of the {self.noun}: {self.noun}['path'] is the first {self.entry} of a module, "
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
            raise RecordError(f"{path!r} has {counted(len(own), self.entry)} in the {self.noun}, but none at {number}")
        return found

    def _at(self, place: int) -> E_co:
        entries = self._entries()
        if not -len(entries) <= place < len(entries):
            raise IndexError(f"the {self.noun} has {counted(len(entries), self.entry)}, but none at {place}")
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
        """`to_dict` as a JSON text."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_pandas(self) -> "pandas.DataFrame":
        """A data frame with a row for each entry; of a monitor, for each point of each series.

        Raises ImportError if pandas is missing: `pip install 'hookline[data]'`.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_pandas() needs pandas: pip install 'hookline[data]'") from error
        rows = [{name: encodable(value) for name, value in self._row(entry).items()} for entry in self._entries()]
        return pandas.DataFrame(rows, columns=[*self.columns])

    def page(self, file: str | os.PathLike[str]) -> Path:
        """Write the result as a page and return its path: one HTML file that loads nothing else.

        Raises StoreError where it cannot be written.
        """
        return self._write("page", file)

    def _write(self, form: str, file: str | os.PathLike[str]) -> Path:
        """Write the result to a file in a form that its renderer offers."""
        renderer_of(self).files[form](self, file)
        return Path(file)

    def _table(self, form: str, *more: Any) -> Any:
        """The result as another table that its renderer offers."""
        return renderer_of(self).tables[form](self, *more)

    def __repr__(self) -> str:
        return renderer_of(self).text(self)

    def __rich__(self) -> Any:
        return renderer_of(self).table(self)

    def _repr_html_(self) -> str:
        return renderer_of(self).html(self)


@dataclass(frozen=True, slots=True)
class Renderer(Generic[R]):
    """The functions that show one kind of result.

    - `table`: a table for rich;
    - `text`: the same as plain text;
    - `html`: the same for a notebook;
    - `files`: writers of files by form, such as "page";
    - `tables`: other tables by form.
    """

    table: Callable[[R], Any]
    text: Callable[[R], str]
    html: Callable[[R], str]
    files: Mapping[str, Callable[[R, str | os.PathLike[str]], None]] = field(default_factory=dict)
    tables: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


def renderer_of(result: Result[Any]) -> Renderer[Any]:
    """The renderer of a result.

    `report` is above every result in the layers and imported only when one is shown, since rich costs more to import
    than the rest of hookline. This is the only import that goes up.
    """
    from hookline.report.renderers import RENDERERS

    return next(RENDERERS[kind] for kind in type(result).__mro__ if kind in RENDERERS)
