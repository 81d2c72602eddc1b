"""Put a Diff together."""

from collections.abc import Iterable

from hookline.compare.difference import Diff, Pair, Unmatched, Weight
from hookline.compare.notes import notes_on_outputs
from hookline.matching.match import Matching
from hookline.matching.tensors import kind_of
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
    """The Diff of two models or runs with these names, with notes on outputs that were not compared."""
    return Diff(
        names=names,
        pairs=tuple(pairs),
        weights=tuple(weights),
        only_a=_told(matching.only_a),
        only_b=_told(matching.only_b),
        mapping={path: to for path, to in matching.paths.items() if path != to},
        proposed=matching.proposed,
        notes=tuple(dict.fromkeys([*notes, *notes_on_outputs(pairs, matching)])),
        every_call=every_call or not _own_floats(pairs),
    )


def _own_floats(pairs: list[Pair]) -> bool:
    """Whether floats of the models' own outputs were compared: integers, such as the index of the largest, can agree
    though the numbers behind them do not."""
    own = [found for pair in pairs if pair.own for found in pair.outputs.values()]
    return any(kind_of(found.dtypes[0]) in ("float", "complex") and None not in found.shapes for found in own)


def _told(calls: tuple[CallRecord, ...]) -> Unmatched:
    return tuple((call.path, call.index, call.type) for call in calls)
