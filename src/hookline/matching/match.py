"""Match the calls of two runs: by path and index, by a mapping of paths, or by a proposal."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch.nn import Module

from hookline.errors import ArgumentError
from hookline.matching.places import in_place
from hookline.matching.propose import propose
from hookline.matching.side import Calls, side_of
from hookline.record.record import CallRecord, Run

STARS = re.compile(r"\*\*|\*")


@dataclass(frozen=True, slots=True)
class Matching:
    """The matched calls of two runs.

    - `pairs`: each call of the first run with its partner in the second, in the order of the first;
    - `only_a`, `only_b`: the calls without a partner;
    - `paths`: the partner of each path of the first run that has one;
    - `proposed`: those of `paths` that were proposed.
    """

    pairs: tuple[tuple[CallRecord, CallRecord], ...]
    only_a: tuple[CallRecord, ...]
    only_b: tuple[CallRecord, ...]
    paths: Mapping[str, str]
    proposed: Mapping[str, str]


def match(
    a: Run,
    b: Run,
    *,
    mapping: Mapping[str, str] | None = None,
    modules: tuple[Mapping[str, Module], Mapping[str, Module]] = ({}, {}),
) -> Matching:
    """Match the calls of two runs: the nth call of a module with the nth of its partner.

    Partners come from `mapping`, then from modules in the same place. Modules that are left on both sides go to
    `propose`. `modules` are the modules of both runs by path, if there are any.

    Raises ArgumentError where the mapping leads from or to nothing, or leads two modules to one.
    """
    ours, theirs = side_of(a, modules[0]), side_of(b, modules[1])
    given = translate([*a.modules, *a.aliases], mapping or {})
    _refuse_stray(given, {*b.modules, *b.aliases}, mapping or {})
    given = {b_from: b.aliases.get(to, to) for b_from, to in given.items()}

    paths = {path: given[path] for path in ours.calls if path in given}
    paths |= _free(in_place(ours, theirs), ours.calls, theirs.calls, paths)
    moved = {path: to for path, to in paths.items() if path != to and path not in given}
    found = moved | propose(ours.but(paths), theirs.but(paths.values()), paths)
    proposed = {path: found[path] for path in ours.calls if path in found}
    paths |= proposed

    pairs = [*_pairs(ours.calls, theirs.calls, paths)]
    matched = {id(call) for pair in pairs for call in pair}
    pairs.sort(key=lambda pair: pair[0].number)
    only_a, only_b = (tuple(call for call in run.calls if id(call) not in matched) for run in (a, b))
    return Matching(tuple(pairs), only_a, only_b, paths, proposed)


def _free(partners: Mapping[str, str], ours: Calls, theirs: Calls, known: Mapping[str, str]) -> dict[str, str]:
    """The partners that were called, for paths without a partner so far."""
    taken = set(known.values())
    fits = ((path, partners[path]) for path in ours if path in partners and path not in known)
    return {path: to for path, to in fits if to in theirs and to not in taken}


def translate(paths: Iterable[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """The partners of paths by a mapping of globs, for the paths that it covers.

    The text that a star matches on the left replaces the same star on the right. Paths below a mapped path go along.
    If several patterns fit a path, the one that matches most of its names counts.

    >>> translate(["bert.encoder.layer.3.attention.self.query"], {"bert.encoder.layer.*": "layers.*"})
    {'bert.encoder.layer.3.attention.self.query': 'layers.3.attention.self.query'}
    """
    rules = [(_expression(left), left, right) for left, right in mapping.items()]
    found = {}
    for path in paths:
        fits = [(fit, right) for expression, _, right in rules if (fit := expression.fullmatch(path))]
        if fits:
            fit, right = min(fits, key=lambda each: len(each[0]["below"]))
            found[path] = _filled(right, fit)
    return found


def _expression(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression with a group for each star, and one for the rest of the path."""
    parts = iter(STARS.findall(pattern))
    whole = "".join(re.escape(text) + _star(next(parts, "")) for text in STARS.split(pattern))
    return re.compile(whole + (r"(?P<below>(?:\..+)?)" if pattern else r"(?P<below>.*)"))


def _star(star: str) -> str:
    return {"": "", "*": r"([^.]+)", "**": r"(.*?)"}[star]


def _filled(right: str, fit: re.Match[str]) -> str:
    *stars, below = fit.groups()
    if len(STARS.findall(right)) > len(stars):
        raise ArgumentError(f"mapping: {right!r} has more stars than the pattern that it belongs to")
    values = iter(stars)
    path = STARS.sub(lambda _: next(values), right)
    whole = f"{path}.{below.removeprefix('.')}" if below and path else path + below.removeprefix(".")
    return whole.strip(".")


def _refuse_stray(given: Mapping[str, str], theirs: set[str], mapping: Mapping[str, str]) -> None:
    for left, right in mapping.items():
        own = translate(given, {left: right})
        if not own:
            raise ArgumentError(f"mapping: {left!r} matches no module of the first")
        if not any(given[path] == to and to in theirs for path, to in own.items()):
            shown = next(iter(own.values()))
            raise ArgumentError(f"mapping: {left!r} leads to {shown!r}, which the second does not have")
    partners: dict[str, str] = {}
    for path, to in given.items():
        if to in theirs and partners.setdefault(to, path) != path:
            raise ArgumentError(f"mapping: {partners[to]!r} and {path!r} both lead to {to!r}")


def _pairs(ours: Calls, theirs: Calls, paths: Mapping[str, str]) -> Iterator[tuple[CallRecord, CallRecord]]:
    for path, partner in paths.items():
        yield from zip(ours.get(path, ()), theirs.get(partner, ()), strict=False)
