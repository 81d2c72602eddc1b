"""A Profile as a plain document, and back."""

from dataclasses import fields
from typing import Any

from hookline.profiling.profiled import Cost, Profile
from hookline.profiling.timeline import Span
from hookline.store.codec import Schema, plain
from hookline.store.members import (
    MemberError,
    Read,
    count,
    expect_object,
    flag,
    listed,
    maybe,
    member,
    number,
    pair,
    text,
    whole,
)

TEXTS, FLAGS, COUNTS = ("path", "type"), ("recompute",), ("calls", "uncounted", "uncounted_self")
READERS: dict[str, Read[Any]] = {  # of what is not a number
    **dict.fromkeys(TEXTS, text),
    **dict.fromkeys(FLAGS, flag),
    **dict.fromkeys(COUNTS, count),
    **dict.fromkeys(("index", "parent"), maybe(count)),
}
COST = Schema(Cost, {each.name: READERS.get(each.name, number) for each in fields(Cost)}, derived=("intensity",))


def pair_of_numbers(value: Any) -> tuple[float, float]:
    """From when to when."""
    return pair(value, number)


SPAN: dict[str, Read[Any]] = {
    **{"path": text, "index": count, "type": text, "recompute": flag, "thread": whole},
    **dict.fromkeys(("forward", "backward", "forward_total", "backward_total"), number),
    **dict.fromkeys(("forward_at", "backward_at"), maybe(pair_of_numbers)),
}
PROFILE: dict[str, Read[Any]] = {
    **{"model": text, "device": text, "repeat": count, "backward": flag, "plain": pair_of_numbers, "added": number},
    **{"taken_off": number, "peak": maybe(count), "uncounted": text, "steps": listed(number)},
}


def to_document(profile: Profile) -> dict[str, Any]:
    """All of a profile for JSON: `costs` in call order, and `spans`, the stretches of the last repeat."""
    numbers = {id(span): place for place, span in enumerate(profile.spans)}
    spans = [
        {
            **{name: plain(getattr(span, name)) for name in SPAN},
            "parent": None if span.parent is None else numbers[id(span.parent)],
        }
        for span in profile.spans
    ]
    own = {name: plain(getattr(profile, name)) for name in PROFILE}
    return {**own, "costs": [COST.write(cost) for cost in profile], "spans": spans}


def decode(document: Any, _: object = None) -> Profile:
    """The profile that a document describes; MemberError where it describes none."""
    expect_object(document, frozenset((*PROFILE, "costs", "spans")))
    costs = member(document, "costs", listed(COST.read))
    for place, cost in enumerate(costs):
        try:
            _expect_earlier(cost, place)
        except MemberError as wrong:
            raise wrong.within(place).within("costs") from None
    spans: list[Span] = []
    member(document, "spans", listed(lambda data: spans.append(_span(data, spans))))
    return Profile(costs, spans=spans, **{name: member(document, name, read) for name, read in PROFILE.items()})


def _expect_earlier(cost: Cost, place: int) -> None:
    """A call that a backward pass made stands in the call that it repeats, and may come after it or before."""
    if cost.parent is not None and cost.parent >= place:
        raise MemberError(f"names call {cost.parent}, which does not come before it").within("parent")


def _span(data: Any, earlier: list[Span]) -> Span:
    expect_object(data, frozenset((*SPAN, "parent")))
    parent = member(data, "parent", maybe(count))
    if parent is not None and parent >= len(earlier):
        raise MemberError(f"names span {parent}, which does not come before it").within("parent")
    own = {name: member(data, name, read) for name, read in SPAN.items()}
    return Span(parent=None if parent is None else earlier[parent], **own)
