"""Diff, Pair, Weight, Cause: the result of a comparison."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from hookline.compare.recorded import Differences, largest
from hookline.matching.tensors import Difference
from hookline.messages import counted
from hookline.result import Result
from hookline.store.folder import write

Unmatched: TypeAlias = tuple[tuple[str, int, str], ...]  # path, index, class


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why a module's outputs differ: its `kind` ("weights", "buffers", "mode", "attribute", "arguments",
    "order", "calls", "dtype", "class", "error", "code"), and a message."""

    kind: str
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Weight:
    """One parameter or buffer that differs.

    - `name_a`, `name_b`: its names in both models, None in a model that does not have it;
    - `kind`: "parameter" or "buffer"; `difference`: by how much it differs;
    - `relation`: how the second is related to the first, such as "transposed", "" if in no known way.
    """

    name_a: str | None
    name_b: str | None
    kind: str
    difference: Difference
    relation: str = ""

    def __str__(self) -> str:
        words = f"{self.name_a or self.name_b} differs: {self.difference}"
        return f"{words}; {self.relation}" if self.relation else words


@dataclass(frozen=True, slots=True)
class Pair:
    """One call of the reference, and its partner.

    - `path_a`, `path_b`, `type_a`, `type_b`: the modules and their classes; `index`: the index of the call;
    - `number`: the pair's place in call order; `parent`: the number of the pair it ran inside, None at the top;
      `ended`: its place in the order in which calls end, where a container comes after its modules;
    - `inputs`, `outputs`: the Difference of each tensor in the inputs and outputs, by the keys that lead to it, and of
      each number, text or None that differs;
    - `buffers`: the same for the buffers that the forward updated, by name, after it (two models only);
    - `grads`, `grad_inputs`: the same for the gradients of the outputs and of the inputs, if they were recorded;
    - `error`: the largest error of the outputs, as a share of their norm; `amplification`: that error over the error of
      the inputs;
    - `is_culprit`: whether the module is a culprit, if it differs; None if that is not known;
    - `causes`: why, if it is one;
    - `excused`: why a difference does not count: "shape" for a call with other shapes, "rounding" if the models compute
      in other dtypes and rounding explains it; "" if it counts.
    """

    path_a: str
    path_b: str
    index: int
    type_a: str
    type_b: str
    number: int
    parent: int | None
    ended: int
    inputs: Differences = field(default_factory=dict)
    outputs: Differences = field(default_factory=dict)
    buffers: Differences = field(default_factory=dict)
    grads: Differences = field(default_factory=dict)
    grad_inputs: Differences = field(default_factory=dict)
    failed: bool = False
    is_culprit: bool | None = None
    causes: tuple[Cause, ...] = ()
    excused: str = ""

    @property
    def own(self) -> bool:
        """Whether it is the call of a model itself, so its outputs are the model's own."""
        return "" in (self.path_a, self.path_b)

    @property
    def path(self) -> str:
        """The path in the reference."""
        return self.path_a

    @property
    def output_differs(self) -> bool:
        """Whether the outputs differ, or only one of the two raised."""
        return self.failed or (not self.excused and any(found.differs for found in self.outputs.values()))

    @property
    def buffers_differ(self) -> bool:
        """Whether a buffer differs after the forward."""
        return any(found.differs for found in self.buffers.values())

    @property
    def gradients_differ(self) -> bool:
        """Whether a gradient differs."""
        found = (each for part in (self.grads, self.grad_inputs) for each in part.values())
        return self.excused != "shape" and any(each.differs for each in found)

    @property
    def folded(self) -> Differences:
        """The gradients and buffers that differ by more than the tolerance, which rounding explains."""
        parts = {**self.grads, **self.grad_inputs, **self.buffers}
        return {key: found for key, found in parts.items() if found.folded}

    @property
    def differs(self) -> bool:
        """Whether the outputs, an updated buffer or a gradient differ by more than the tolerance."""
        return self.output_differs or self.buffers_differ or self.gradients_differ

    @property
    def worst(self) -> Difference | None:
        """The output that differs most; if the outputs agree, the buffer or else the gradient; None for a module
        without outputs."""
        backward = {**self.grads, **self.grad_inputs} if self.gradients_differ else self.outputs
        shown = self.outputs if self.output_differs else self.buffers if self.buffers_differ else backward
        return max(shown.values(), key=_size, default=None)

    @property
    def error(self) -> float:
        """The largest error of the outputs, as a share of their norm."""
        return largest(self.outputs)

    @property
    def amplification(self) -> float:
        """Error of the output over error of the inputs; infinite if only the output differs, NaN if neither is
        known."""
        given, gave = largest(self.inputs), self.error
        if math.isnan(given) or math.isnan(gave) or given == gave == 0 or math.isinf(given):
            return math.nan
        return gave / given if given else math.inf

    @property
    def why(self) -> str:
        """The causes, in a line."""
        return "; ".join(cause.message for cause in self.causes)

    def __str__(self) -> str:
        name = f"{self.path or '(the model)'}{f' #{self.index}' if self.index else ''} ({self.type_a})"
        worst = self.worst
        shown = worst is not None and (self.differs or bool(self.excused))
        words = f"{name}: {worst}" if shown else f"{name}: the same"
        words += {"": "", "shape": "; not compared", "rounding": "; rounding explains it"}[self.excused]
        return f"{words}; {self.why}" if self.causes else words


FIGURES = ("absolute", "relative", "error", "cosine", "snr", "ulps", "nan", "beyond", "count")
COLUMNS = (
    *("path_a", "path_b", "index", "type_a", "type_b", "number", "parent", "differs"),
    *("is_culprit", "amplification", *FIGURES, "why"),
)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Diff(Result[Pair]):
    """Where two models or two runs differ: a `Pair` for each call of the first, the reference, that has a partner.

    It is true if the models' own outputs differ, or an updated buffer or a gradient; with `every_call`, if any call
    differs. Printed, it is a tree with the differing branch open.

    `diff["encoder"]` is the pair of the first call of a module of the reference, `diff["encoder", 2]` that of its call
    2, `diff[0]` the first pair of all.

    - `pairs`: in call order; `weights`: each parameter and buffer that differs (two models only);
    - `only_a`, `only_b`: (path, index, class) of the calls without a partner;
    - `mapping`: the partners whose paths differ; `proposed`: those of them that were proposed;
    - `notes`: what to know about this comparison, such as what could not be compared;
    - `names`: the names of the two models;
    - `every_call`: whether a call inside that differs counts although the models' own outputs agree: if tolerances were
      given, if the own outputs hold no floats, such as token ids, and if they were not compared.
    """

    noun: ClassVar[str] = "diff"
    entry: ClassVar[str] = "pair"
    columns: ClassVar[Sequence[str]] = COLUMNS

    names: tuple[str, str]
    pairs: tuple[Pair, ...]
    weights: tuple[Weight, ...] = ()
    only_a: Unmatched = ()
    only_b: Unmatched = ()
    mapping: Mapping[str, str] = field(default_factory=dict)
    proposed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    every_call: bool = False

    @property
    def same(self) -> bool:
        """Whether the models' own outputs agree within the tolerance, and all updated buffers and gradients. Calls
        inside may still differ, as `summary` and `first` say; weights may differ without any effect."""
        if self.every_call or self.outputs_agree is None:
            return not any(pair.differs for pair in self.pairs)
        return self.outputs_agree and not any(pair.buffers_differ or pair.gradients_differ for pair in self.pairs)

    @property
    def outputs_agree(self) -> bool | None:
        """Whether the models' own outputs agree; None if the models' own calls are not among the pairs."""
        own = [pair for pair in self.pairs if pair.own]
        return not any(pair.output_differs for pair in own) if own else None

    @property
    def apart(self) -> tuple[Pair, ...]:
        """The calls with other shapes, which were not compared; they do not count as different."""
        return tuple(pair for pair in self.pairs if pair.excused == "shape")

    @property
    def identical(self) -> bool:
        """Whether no call differs in any element, as far as the runs kept them; 0.0 and -0.0 are equal."""
        parts = (part for pair in self.pairs for part in (pair.outputs, pair.buffers, pair.grads))
        return all(found.identical for part in parts for found in part.values())

    @property
    def first(self) -> Pair | None:
        """The first call to end with an output that differs; if outputs agree, with buffers that differ; if those agree
        too, the first call of the backward pass with a gradient that differs. None if nothing differs."""
        updated = [pair for pair in self.pairs if pair.buffers_differ]
        given = [pair for pair in self.pairs if pair.output_differs] or updated
        if given:
            return min(given, key=lambda pair: pair.ended)
        return max((pair for pair in self.pairs if pair.gradients_differ), key=lambda pair: pair.number, default=None)

    @property
    def culprits(self) -> tuple[Pair, ...]:
        """The calls that cause a difference: first those whose outputs differ, in the order in which they ended, then
        those whose buffers alone differ, then gradients alone, in the order of the backward pass."""
        made = sorted((pair for pair in self.pairs if pair.is_culprit), key=lambda pair: pair.ended)
        forward = [pair for pair in made if pair.output_differs]
        updating = [pair for pair in made if pair.buffers_differ and not pair.output_differs]
        backward = [pair for pair in made if not pair.output_differs and not pair.buffers_differ]
        return (*forward, *updating, *sorted(backward, key=lambda pair: -pair.number))

    @property
    def culprit(self) -> Pair | None:
        """The first of the culprits; None if none is known."""
        return next(iter(self.culprits), None)

    @property
    def unmatched(self) -> Unmatched:
        """Every call without a partner, first those of the first model."""
        return (*self.only_a, *self.only_b)

    def _entries(self) -> Sequence[Pair]:
        return self.pairs

    def _of(self, path: str) -> Mapping[int, Pair]:
        return {pair.index: pair for pair in self.pairs if pair.path_a == path}

    def _why_empty(self, path: str) -> str | None:
        return "has no partner" if any(path == alone for alone, _, _ in self.only_a) else None

    def _row(self, entry: Pair, /) -> Mapping[str, Any]:
        return row(entry)

    @property
    def summary(self) -> str:
        """The result in a line."""
        one, other = self.names
        count, differing = len(self.pairs), sum(pair.differs for pair in self.pairs)
        head = f"{one} and {other}"
        if not count:
            return f"{head}: no call of the first matches a call of the second"
        head = f"{head}:{self._own_outputs()}"
        if not differing:
            return f"{head} no difference in {counted(count - len(self.apart), 'call')}{self._though()}"
        first, culprit = self.first, self.culprit
        inside = " inside" if self.outputs_agree else ""
        told = f"{head} {differing:,} of {count:,} calls{inside} differ, first {_name(first)}"
        if culprit is None:
            return f"{told}: {first.why}" if first is not None and first.why else told
        more = len({pair.path_a for pair in self.culprits}) - 1
        others = f" and {more} more" if more else ""
        return f"{told}; culprit{'s' if more else ''} {_name(culprit)}{others}: {culprit.why}"

    def _own_outputs(self) -> str:
        """Whether the models' own outputs agree, as the summary begins; "" if they were not compared."""
        own = [found for pair in self.pairs if pair.own for found in pair.outputs.values()]
        if self.outputs_agree and own and all(found.basis == "shape" and None not in found.shapes for found in own):
            return " outputs have the same shapes;"
        return {None: "", True: " outputs agree;", False: " outputs differ;"}[self.outputs_agree]

    @property
    def rounded(self) -> tuple[Pair, ...]:
        """The calls whose outputs, gradients or buffers differ by rounding, where the models compute in other dtypes;
        some of them may differ in something else too."""
        return tuple(pair for pair in self.pairs if pair.excused == "rounding" or pair.folded)

    def _though(self) -> str:
        """What to add when all calls agree."""
        tolerated = " beyond rounding" if self.rounded else "" if self.identical else " beyond the tolerance"
        verb = "differs" if len(self.weights) == 1 else "differ"
        return f"{tolerated}, though {counted(len(self.weights), 'weight')} {verb}" if self.weights else tolerated

    def to_dict(self) -> dict[str, Any]:
        """The diff as plain data that JSON can hold: numbers that are not finite are text."""
        from hookline.compare.diff_document import to_document

        return to_document(self)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the diff to a folder, whole or not at all, as `diff.json`. Raises StoreError if the folder holds
        something else."""
        write(folder, self.to_dict(), {}, kind=self.noun)

    def __bool__(self) -> bool:
        return not self.same


def row(pair: Pair) -> dict[str, Any]:
    """A pair as a flat row: a value for each of COLUMNS."""
    worst = pair.worst
    figures = {name: getattr(worst, name) if worst is not None else None for name in FIGURES}
    return {**{name: getattr(pair, name) for name in COLUMNS if name not in FIGURES}, **figures}


def _name(pair: Pair | None) -> str:
    if pair is None:
        return ""
    return f"{pair.path or 'the model'}{f' #{pair.index}' if pair.index else ''} ({pair.type_a})"


def _size(found: Difference) -> tuple[bool, float]:
    """The key that picks the worst: an error that is not known is the largest if it differs, else the smallest."""
    unknown = math.inf if found.differs else -1.0
    return found.differs, unknown if math.isnan(found.error) else found.error
