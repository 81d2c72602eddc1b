"""The page of a profile."""

from collections.abc import Iterator
from typing import Any

from hookline.profiling.profiled import Cost, Profile
from hookline.report.page.build import Names, document, mark, number
from hookline.report.profile_table import footnotes

FIGURES = (
    *("forward", "forward_self", "forward_spread", "backward", "backward_self", "backward_spread"),
    *("flops", "flops_self", "backward_flops", "backward_flops_self", "intensity"),
    *("uncounted", "kept", "kept_self", "parameters", "parameters_self", "parameter_bytes", "moved"),
)
CALL = ("path", "index", "class", "parent", "recompute", *FIGURES)
MOST_MARKS, LEAST_SHARE = 5, 0.02


def profile_document(profile: Profile) -> dict[str, Any]:
    """The document of a profile's page."""
    names = Names()
    calls = [[*_row(cost, names)] for cost in profile]
    return document(
        "profile",
        title=profile.model,
        summary=profile.summary.removeprefix(f"{profile.model}: ").removeprefix(profile.model).strip(),
        notes=footnotes(profile),
        marks=[*_marks(profile)],
        aliases={},
        columns={"call": CALL},
        names=[*names],
        timed=bool(profile.repeat),
        backward=profile.backward,
        calls=calls,
    )


def _row(cost: Cost, names: Names) -> Iterator[Any]:
    """The values of one call for each of CALL."""
    yield from (names(cost.path), cost.index, names(cost.type), cost.parent, cost.recompute)
    yield from (number(getattr(cost, name)) for name in FIGURES)


def _marks(profile: Profile) -> Iterator[dict[str, Any]]:
    """Marks for the modules with the largest self time, or the most FLOPs if nothing was timed."""
    name, unit = ("seconds_self", "time") if profile.repeat else ("flops_self", "FLOPs")
    rows = sorted(profile.by_path(), key=lambda row: -getattr(row, name))
    whole = profile.total.seconds if profile.repeat else profile.total.flops
    first = {cost.path: number for number, cost in reversed([*enumerate(profile)])}
    for row in rows[:MOST_MARKS]:
        share = getattr(row, name) / whole if whole else 0.0
        if share >= LEAST_SHARE:
            times = f" in {row.calls:,} calls" if row.calls > 1 else ""
            text = f"{share:.0%} self {unit}{times} ({row.type})"
            yield mark("costly", first[row.path], text, path=row.path)
