"""Turn a Profile into a plain document, and back."""

from dataclasses import fields
from typing import Any

from hookline.profiling.profiled import Cost, Profile
from hookline.profiling.timeline import Span
from hookline.store.codec import Schema, plain
from hookline.store.members import (
    MemberError,
    Read,
    count,
    finite,
    flag,
    listed,
    maybe,
    member,
    number,
    pair,
    text,
    whole,
)


def both(value: Any) -> tuple[float, float]:
    """A pair of numbers: of the forward and of the backward pass."""
    return pair(value, number)


READERS: dict[str, Read[Any]] = {  # of the members of a Cost that are not numbers
    **{"path": text, "type": text, "recompute": flag, "index": maybe(count), "parent": maybe(count)},
    **dict.fromkeys(("calls", "uncounted", "uncounted_self"), count),
}
COST = Schema(Cost, {each.name: READERS.get(each.name, number) for each in fields(Cost)}, beside=("intensity",))
SPAN = Schema(
    Span,
    {
        **{"path": text, "index": count, "type": text, "recompute": flag, "thread": whole},
        **dict.fromkeys(("forward", "backward", "forward_total", "backward_total"), finite),
        **dict.fromkeys(("forward_at", "backward_at"), maybe(lambda value: pair(value, finite))),
    },
    beside=("parent",),
)
PROFILE = Schema(
    Profile,
    {
        **{"model": text, "device": text, "repeat": count, "backward": flag, "plain": both, "added": number},
        **{"taken_off": number, "peak": maybe(count), "uncounted": text, "steps": listed(number)},
    },
    beside=("costs", "spans"),
)


def to_document(profile: Profile) -> dict[str, Any]:
    """A profile as data for JSON: `costs` in call order, and the `spans` of the last repeat."""
    numbers = {id(span): place for place, span in enumerate(profile.spans)}
    costs = [{**COST.write(cost), "intensity": plain(cost.intensity)} for cost in profile]
    spans = [{**SPAN.write(span), "parent": numbers.get(id(span.parent))} for span in profile.spans]
    return {**PROFILE.write(profile), "costs": costs, "spans": spans}


def decode(document: Any, _: object = None) -> Profile:
    """The profile in a document; MemberError where it is not a profile."""
    own = PROFILE.values(document)
    costs = member(document, "costs", listed(COST.read))
    for place, cost in enumerate(costs):
        if cost.parent is not None and cost.parent >= place:
            wrong = MemberError(f"names call {cost.parent}, which does not come before it")
            raise wrong.within("parent").within(place).within("costs")
    spans: list[Span] = []
    member(document, "spans", listed(lambda data: spans.append(_span(data, spans))))
    return Profile(costs, spans=spans, **own)


def _span(data: Any, earlier: list[Span]) -> Span:
    own = SPAN.values(data)
    parent = member(data, "parent", maybe(count))
    if parent is not None and parent >= len(earlier):
        raise MemberError(f"names span {parent}, which does not come before it").within("parent")
    return Span(parent=None if parent is None else earlier[parent], **own)
