"""Why the outputs of two calls differ: what they call their modules with, and in which order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hookline.compare.difference import Cause
from hookline.compare.recorded import compare_values, key_text, other_arguments, paired_leaves
from hookline.compare.weights import relation
from hookline.matching.fingerprint import SAMPLES, is_fingerprint
from hookline.matching.tensors import Difference
from hookline.model.keypath import named
from hookline.record.record import CallRecord, TensorInfo

MOST = 5  # of a kind that are named one by one


@dataclass(frozen=True, slots=True)
class Inside:
    """A pair of calls made by two others.

    - `one`, `other`: their records; `differs`: whether their outputs differ;
    - `name`: the module's name in messages; `arguments`: the names of its positional arguments, if they are known.
    """

    one: CallRecord
    other: CallRecord
    differs: bool
    name: str
    arguments: list[str]


def call_causes(a: CallRecord, b: CallRecord, inside: list[Inside], rounding: float = 0.0) -> list[Cause]:
    """Why the outputs of two calls differ; `inside` are the pairs of calls that they made, in order. The first of them
    with inputs that differ is named."""
    found = [Cause("error", f"raised {call.error}") for call in (a, b) if call.error is not None and a.error != b.error]
    for each in inside:
        text = next(_other_inputs(each, rounding), None)
        if text is not None:
            found.append(Cause("arguments", text))
        if each.differs or text is not None:
            break
    return found + _order(inside)


def beyond(found: Difference, rounding: float) -> bool:
    """Whether it differs by more than rounding explains."""
    return found.differs and (not rounding or bool(found.nan) or not found.error <= rounding)


def _other_inputs(each: Inside, rounding: float) -> Iterator[str]:
    """The inputs of a module that differ, in order."""
    one, other = named(each.one.args, each.one.kwargs), named(each.other.args, each.other.kwargs)
    infos = {key_text(keys): (ours, theirs) for keys, ours, theirs in paired_leaves(one, other, kind=TensorInfo)}
    absent: list[str] = []
    for key, difference in compare_values(one, other).items():
        if not beyond(difference, rounding):
            continue
        ours, theirs = infos[key]
        label = "" if len(infos) == 1 and key == "0" else f"{_argument(key, each.arguments)} "
        if ours is None or theirs is None:
            absent.append(f"calls {each.name} {_missing(label, key, ours=ours)}")
            continue
        numbers = _as_numbers(ours, theirs)
        if numbers is None:
            yield f"passes {each.name} another argument {key}: {_with_relation(difference, ours, theirs)}"
        elif numbers[0] != numbers[1]:
            yield f"calls {each.name} with {label}{numbers[1]}, not {numbers[0]}"
    for key, mine, yours in other_arguments(one, other):
        if key not in infos:
            yield f"passes {each.name} {key} = {mine!r} vs {yours!r}"
    if each.differs:
        yield from absent
        yield from (f"calls {each.name} {text}" for text in _absent_plain(one, other, each.arguments))


def _missing(label: str, key: str, *, ours: Any) -> str:
    name = label.strip() or f"argument {key}"
    return f"without {name}" if ours is not None else f"with {name}, which the first leaves out"


def _absent_plain(one: Any, other: Any, names: list[str]) -> Iterator[str]:
    """The numbers and texts that only one of two calls receives."""
    for mine, yours, verb in ((one, other, "without"), (other, one, "with")):
        for key, part in mine.items():
            if key not in yours and isinstance(part, bool | int | float | str) and len(mine) > len(yours):
                name = _argument(str(key), names)
                yield f"without {name}" if verb == "without" else f"with {name} = {part!r}, which the first leaves out"


def _argument(key: str, names: list[str]) -> str:
    """The name of an argument, if it is known."""
    place, _, rest = key.partition(".")
    if not place.isdigit():
        return key
    name = names[int(place)] if int(place) < len(names) else f"argument {place}"
    return f"{name}.{rest}" if rest else name


def _with_relation(difference: Difference, one: TensorInfo, other: TensorInfo) -> str:
    """The difference, and how the two tensors are related, if both were kept."""
    a, b = one.value, other.value
    more = relation(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else ""
    return f"{difference}; {more}" if more else str(difference)


def _as_numbers(one: TensorInfo, other: TensorInfo) -> tuple[str, str] | None:
    """The integers of two tensors, in short; None for other tensors, and if they were not kept."""
    ours, theirs = _numbers(one), _numbers(other)
    return None if ours is None or theirs is None else (ours, theirs)


def _numbers(info: TensorInfo) -> str | None:
    """The integers of a tensor, in short: 0..15 for consecutive ones, one row if all rows are equal."""
    value: Any = info.value
    if is_fingerprint(value):
        value = value["samples"] if value["count"] <= SAMPLES else None
    if not isinstance(value, Tensor) or value.is_meta or value.dtype not in WHOLE or not value.numel():
        return None
    rows = value.reshape(-1, info.shape[-1] if info.shape else 1).tolist()
    row = rows[0] if all(each == rows[0] for each in rows) else [number for each in rows for number in each]
    if len(row) > 1 and row == [*range(row[0], row[0] + len(row))]:
        return f"{row[0]}..{row[-1]}"
    shown = ", ".join(map(str, row[: MOST + 3]))
    return f"{shown}, ... ({len(row):,} numbers)" if len(row) > MOST + 3 else shown


WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def other_inputs(a: CallRecord, b: CallRecord, rounding: float = 0.0) -> list[str]:
    """The arguments of two calls that differ, in words."""
    one, other = named(a.args, a.kwargs), named(b.args, b.kwargs)
    differences = compare_values(one, other)
    found = [f"another argument {key}: {each}" for key, each in differences.items() if beyond(each, rounding)]
    return found + [f"{key} = {ours!r} vs {theirs!r}" for key, ours, theirs in other_arguments(one, other)]


def names_inside(paths: list[str], holder: str) -> dict[str, str]:
    """The shortest ends of paths that are unique below their container.

    >>> names_inside(["t.wpe", "t.h.0.ln", "t.h.1.ln"], "t")
    {'t.wpe': 'wpe', 't.h.0.ln': 'h.0.ln', 't.h.1.ln': 'h.1.ln'}
    """
    found = {}
    for path in paths:
        parts = (path.removeprefix(f"{holder}.") if holder else path).split(".")
        ends = (".".join(parts[-count:]) for count in range(1, len(parts)))
        fits: Callable[[str], bool] = lambda end: (  # noqa: E731
            not end[0].isdigit() and sum(f".{other}".endswith(f".{end}") for other in paths) == 1
        )
        found[path] = next(filter(fits, ends), ".".join(parts))
    return found


def _order(inside: list[Inside]) -> list[Cause]:
    """A cause if the two calls make their calls in different orders."""
    theirs = sorted(inside, key=lambda each: each.other.number)
    names = [[each.one.path.rpartition(".")[2] for each in order] for order in (inside, theirs)]
    if names[0] == names[1]:
        return []
    shown = [", ".join(order[:MOST]) for order in names]
    return [Cause("order", f"calls its modules in another order: {shown[0]} vs {shown[1]}")]
