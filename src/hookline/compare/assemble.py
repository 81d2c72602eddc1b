"""A Diff out of what was found."""

from collections.abc import Iterable, Iterator

from hookline.compare.difference import Diff, Pair, Unmatched, Weight
from hookline.matching.match import Matching
from hookline.matching.tensors import kind_of
from hookline.model.tensors import Opaque, leaves
from hookline.record.record import CallRecord


def assembled(
    names: tuple[str, str],
    pairs: list[Pair],
    matching: Matching,
    notes: Iterable[str],
    weights: Iterable[Weight] = (),
    *,
    every_call: bool = False,
) -> Diff:
    """The Diff of two models or runs of these names, with a note on the outputs that only one of two modules gives."""
    return Diff(
        names=names,
        pairs=tuple(pairs),
        weights=tuple(weights),
        only_a=_told(matching.only_a),
        only_b=_told(matching.only_b),
        mapping={path: to for path, to in matching.paths.items() if path != to},
        proposed=matching.proposed,
        notes=tuple(dict.fromkeys([*notes, *_spare_outputs(pairs), *_unseen_outputs(pairs, matching)])),
        every_call=every_call or not _own_floats(pairs),
    )


def _own_floats(pairs: list[Pair]) -> bool:
    """Whether floats of the models' own outputs were compared: whole numbers, such as the index of the largest, agree
    though the numbers that they were made of do not."""
    own = [found for pair in pairs if pair.own for found in pair.outputs.values()]
    return any(kind_of(found.dtypes[0]) in ("float", "complex") and None not in found.shapes for found in own)


def only_shapes(pairs: list[Pair]) -> bool:
    """Whether of outputs that agree nothing but their shapes was compared."""
    compared = [found.basis for pair in pairs for found in pair.outputs.values() if not found.differs]
    return bool(compared) and all(basis == "shape" for basis in compared)


def _unseen_outputs(pairs: list[Pair], matching: Matching) -> Iterator[str]:
    """A note on the modules that gave objects that are not looked into, and nothing beside them."""
    unseen: dict[str, str] = {}
    for pair in pairs:
        inside = [kind for call in matching.pairs[pair.number] for _, kind in leaves(call.output, kind=Opaque)]
        if inside and not pair.outputs:
            unseen.setdefault(pair.path or "the model", inside[0].type)
    if unseen:
        path, kind = next(iter(unseen.items()))
        more = f", and what {len(unseen) - 1} more modules give" if len(unseen) > 1 else ""
        yield f"not looked into, so not compared: the {kind} that {path} gives{more}"


def _spare_outputs(pairs: list[Pair]) -> Iterator[str]:
    """A note on the outputs that nothing was compared with."""
    spare = {
        pair.path: key
        for pair in pairs
        for key, found in pair.outputs.items()
        if None in found.shapes and not found.differs
    }
    if spare:
        path, key = next(iter(spare.items()))
        more = f", and of {len(spare) - 1} more modules" if len(spare) > 1 else ""
        yield f"outputs that only one gives are not compared: {key} of {path or 'the model'}{more}"


def _told(calls: tuple[CallRecord, ...]) -> Unmatched:
    return tuple((call.path, call.index, call.type) for call in calls)
