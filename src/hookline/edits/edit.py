"""Edit: a change to one tensor, as a value."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from hookline.engine.notes import describe
from hookline.errors import ArgumentTypeError, EditError
from hookline.messages import function_name, with_article
from hookline.model.keypath import Keys
from hookline.record.record import Run
from hookline.record.run_document import to_document


@dataclass(frozen=True, slots=True)
class Spot:
    """Where an edit is applied.

    - `path`: the path of the module;
    - `index`: which call of the module, counted from when the edit was added;
    - `part`: "input", "output", "grad_output" or "grad_input";
    - `keys`: the keys that lead to the tensor inside that part;
    - `at`: the index into that tensor, None for all of it;
    - `shape`: the shape of the whole tensor;
    - `place`: which edit of a chain it is.
    """

    path: str
    index: int
    part: str
    keys: Keys
    at: Any = None
    shape: tuple[int, ...] = ()
    place: int = 0


class Edit(ABC):
    """A change to one tensor, as a value that can be printed, compared, saved and chained (`first >> second`). An edit
    with parameters can be trained.

    Your own subclass must define `change`, and is best a frozen dataclass.
    """

    __slots__ = ()
    located: ClassVar[bool] = False  # whether `change` uses the Spot

    @abstractmethod
    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The tensor to use instead of `tensor`, which must not be changed in place."""

    def parameters(self) -> list[Tensor]:
        """The tensors of this edit that require a gradient, for an optimizer."""
        return [value for value in self.held().values() if isinstance(value, Tensor) and value.requires_grad]

    def held(self) -> dict[str, Any]:
        """The fields of this edit by name."""
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
    """Several edits, applied one after another: `first >> second`.

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
        """Whether one of the edits uses the Spot."""
        return any(edit.located for edit in self.edits)

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The tensor after every edit in turn."""
        for place, edit in enumerate(self.edits):
            tensor = edit.change(tensor, replace(spot, place=place) if edit.located else spot)
        return tensor

    def parameters(self) -> list[Tensor]:
        """The parameters of every edit, each once."""
        found = {id(parameter): parameter for edit in self.edits for parameter in edit.parameters()}
        return [*found.values()]

    def __repr__(self) -> str:
        return " >> ".join(map(repr, self.edits))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class apply(Edit):
    """A function that takes the tensor and returns the new one. The function alone also works wherever an edit does.

    >>> from hookline import edits
    >>> edits.apply(torch.nn.functional.relu)
    apply(function=relu)
    """

    function: Callable[[Tensor], Tensor]

    def change(self, tensor: Tensor, spot: Spot) -> Tensor:
        """The tensor that the function returns."""
        new = self.function(tensor)
        if not isinstance(new, Tensor):
            raise EditError(
                f"{self} returned {'None' if new is None else with_article(type(new).__name__)}; "
                "it must return the new tensor"
            )
        return new

    def __repr__(self) -> str:
        return f"apply(function={function_name(self.function)})"


def as_edit(value: Any) -> Edit:
    """The edit for a value: an edit itself, a function of the tensor, or a list of these."""
    if isinstance(value, Edit):
        return value
    if isinstance(value, list | tuple) and value:
        return chain(tuple(map(as_edit, value)))
    if isinstance(value, Tensor | int | float):
        raise ArgumentTypeError(
            f"expected an edit or a function of the tensor, not {describe(value)}; to substitute a value use "
            "hookline.edits.replace(...)"
        )
    if not callable(value) or isinstance(value, type):
        raise ArgumentTypeError(f"expected an edit of hookline.edits or a function of the tensor, not {value!r}")
    return apply(value)


def same_runs(one: Any, other: Any) -> bool:
    """Whether two runs, each as a document and its tensors, are equal."""
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
