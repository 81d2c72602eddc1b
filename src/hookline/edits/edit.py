"""Edit: a change of one tensor, as a value."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hookline.engine.notes import describe
from hookline.errors import ArgumentTypeError, EditError
from hookline.model.keypath import Keys
from hookline.record.record import Run
from hookline.record.run_document import to_document


@dataclass(frozen=True, slots=True)
class Spot:
    """Where an edit is at work: in which call of which module (`index` counts from when the edit was put on), on which
    part of the call ("input", "output", "grad_output", "grad_input"), at which keys and which index of that; the shape
    of the whole tensor there, and which edit of a chain it is."""

    path: str
    index: int
    part: str
    keys: Keys
    at: Any = None
    shape: tuple[int, ...] = ()
    place: int = 0


class Edit(ABC):
    """A change of one tensor, as a value: it is printed, compared, saved, put before another (`first >> second`), and
    where it holds parameters, trained.

    A class of your own needs `change`, and is best a frozen dataclass.
    """

    __slots__ = ()
    located: ClassVar[bool] = False  # whether `change` asks for the Spot

    @abstractmethod
    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The tensor that takes the place of `tensor`, which is left as it is."""

    def parameters(self) -> list[Tensor]:
        """What an optimizer can train: the tensors of this edit that require a gradient."""
        return [value for value in self.held().values() if isinstance(value, Tensor) and value.requires_grad]

    def held(self) -> dict[str, Any]:
        """What it holds, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def __rshift__(self, other: Any) -> "chain":
        return chain((self, as_edit(other)))

    def __rrshift__(self, other: Any) -> "chain":
        return chain((as_edit(other), self))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        others = other.held()
        return all(same(value, others[name]) for name, value in self.held().items())

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        shown = (f"{name}={describe(value)}" for name, value in self.held().items() if value is not None)
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class chain(Edit):
    """Several edits, one after another: what `first >> second` gives.

    >>> from hookline import edits
    >>> edits.scale(2.0) >> edits.clamp(min=0.0)
    scale(factor=2.0) >> clamp(min=0.0)
    """

    edits: tuple[Edit, ...]

    def __post_init__(self) -> None:
        flat = [part for edit in self.edits for part in (edit.edits if isinstance(edit, chain) else (edit,))]
        object.__setattr__(self, "edits", tuple(flat))

    @property
    def located(self) -> bool:  # type: ignore[override]
        """Whether one of them asks where it is at work."""
        return any(edit.located for edit in self.edits)

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """What the last edit makes of what those before it made."""
        for place, edit in enumerate(self.edits):
            tensor = edit.change(tensor, replace(spot, place=place) if edit.located else spot)
        return tensor

    def parameters(self) -> list[Tensor]:
        """Those of every edit, each once."""
        found = {id(parameter): parameter for edit in self.edits for parameter in edit.parameters()}
        return [*found.values()]

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.edits))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class apply(Edit):
    """A function of the tensor that gives another. Wherever an edit is asked for, the function alone will do.

    >>> from hookline import edits
    >>> edits.apply(torch.nn.functional.relu)
    apply(function=relu)
    """

    function: Callable[[Tensor], Tensor]

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """What the function gives."""
        new = self.function(tensor)
        if not isinstance(new, Tensor):
            raise EditError(
                f"{self} gave {'None' if new is None else f'a {type(new).__name__}'}; it is to give the new tensor"
            )
        return new

    def __repr__(self) -> str:
        return f"apply(function={getattr(self.function, '__qualname__', type(self.function).__name__)})"


def as_edit(value: Any) -> Edit:
    """The edit that a value stands for: itself, a function of the tensor, or several of these in a list."""
    if isinstance(value, Edit):
        return value
    if isinstance(value, list | tuple) and value:
        return chain(tuple(map(as_edit, value)))
    if isinstance(value, Tensor | int | float):
        raise ArgumentTypeError(
            f"{describe(value)} is no edit; hookline.edits.replace(...) puts it in the place of what is there"
        )
    if not callable(value) or isinstance(value, type):
        raise ArgumentTypeError(f"{value!r} is no edit; give a function of the tensor, or one of hookline.edits")
    return apply(value)


def same_runs(one: Any, other: Any) -> bool:
    """Whether two runs, each as a document and its tensors, hold the same."""
    (document, tensors), (other_document, other_tensors) = one, other
    alike = document == other_document and tensors.keys() == other_tensors.keys()
    return alike and all(same(tensor, other_tensors[name]) for name, tensor in tensors.items())


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, tensors element by element."""
    if isinstance(one, Tensor):
        return (
            isinstance(other, Tensor)
            and (one.dtype, one.shape, one.device) == (other.dtype, other.shape, other.device)
            and torch.equal(one, other)
        )
    if isinstance(one, Run):
        return isinstance(other, Run) and (one is other or same_runs(to_document(one), to_document(other)))
    if isinstance(one, tuple):
        return isinstance(other, tuple) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
