"""A profile as a tree table, in the terminal and as HTML."""

import math

from hookline.messages import engineering, milliseconds
from hookline.model.console import Group, Text
from hookline.profiling.profiled import Cost, Profile
from hookline.report.fit import Fitted
from hookline.report.html import table_html

BAR = 20
BUSY = 0.25  # largest interquartile range of the steps, as a share of the median, of a machine that is not busy
MOST_ROWS = 400
TIMED = ("forward ms", "self", "±", "backward ms", "self", "share")
SPARE = ("±", "FLOP/B", "back", "class", "kept", "params", "backward ms", "FLOP", "share", "self", "forward ms")
COUNTED = ("FLOP", "back", "FLOP/B", "kept", "params")


def profile_table(profile: Profile, *, most: int = MOST_ROWS) -> Group:
    """The profile as a rich table: a row for each module, indented by its depth, and notes below."""
    rows, total = profile.by_path(), profile.total
    head = ("module", "class", *columns(profile))
    spare = [head.index(name) for name in SPARE if name in head]
    spare.insert(3, len(head) - 1 - head[::-1].index("self")) if head.count("self") > 1 else None
    table = Fitted(head, spare, left=[0, 1, *(place for place, name in enumerate(head) if name == "share")])
    tree = tree_of(profile)
    for row in rows[:most]:
        depth, name = tree[row.path]
        times = f" x{row.calls}" if row.calls != 1 else ""
        table.add_row("  " * depth + name + times, row.type, *cells(row, total, profile))
    left = [Text(f"... and {len(rows) - most:,} more modules", style="dim")] if len(rows) > most else []
    notes = [Text(note, style="dim") for note in footnotes(profile)]
    return Group(Text(profile.summary, style="bold"), table, *left, *notes)


def profile_html(profile: Profile) -> str:
    """The profile as an HTML table, a row for each module."""
    total, tree = profile.total, tree_of(profile)
    named = ((row, *tree[row.path]) for row in profile.by_path())
    rows = ((depth, (name, row.type, *cells(row, total, profile))) for row, depth, name in named)
    return table_html(profile.summary, ("module", "class", *columns(profile)), rows, footnotes(profile))


def columns(profile: Profile) -> tuple[str, ...]:
    """The columns of figures: times if something was timed, those of the backward pass if there was one."""
    timed: tuple[str, ...] = TIMED if profile.repeat else ()
    counted: tuple[str, ...] = COUNTED
    if not profile.backward:
        timed = timed[:3] + timed[5:]
        counted = tuple(name for name in COUNTED if name not in ("back", "kept"))
    return (*timed, *counted)


def footnotes(profile: Profile) -> list[str]:
    """The lines below the table: how unsteady the times are, if they are, and the self time of each class."""
    unsteady = [why_unsteady(profile)] if profile.busy > BUSY else []
    return [*unsteady, by_class_line(profile)]


def why_unsteady(profile: Profile) -> str:
    """The range of the times of the steps, in a line."""
    least, most = milliseconds(min(profile.steps)), milliseconds(max(profile.steps))
    return f"the machine was busy: steps took from {least} to {most} ms, so another run will show other figures"


def by_class_line(profile: Profile, most: int = 6) -> str:
    """The self time by class, or the FLOPs if nothing was timed, in a line."""
    total = profile.total
    whole, name = (total.seconds, "seconds_self") if profile.repeat else (total.flops, "flops_self")
    shares = [(row, getattr(row, name) / whole if whole else 0.0) for row in profile.by_class()]
    listed = ", ".join(f"{row.type} {share:.0%}" for row, share in shares[:most] if share >= 0.005)
    return f"self {'time' if profile.repeat else 'FLOPs'} by class: {listed}"


def cells(row: Cost, total: Cost, profile: Profile) -> list[str]:
    """The figures of one module, one for each column."""
    timed = []
    if profile.repeat:
        timed = [ms(row.forward), ms(row.forward_self), ms(row.forward_spread)]
        timed += [ms(row.backward), ms(row.backward_self)] if profile.backward else []
        timed.append(bar(row.seconds_self / total.seconds if total.seconds else 0.0))
    counted = [operations(row.flops, row.uncounted)]
    counted += [operations(row.backward_flops, row.uncounted)] if profile.backward else []
    counted.append("" if math.isnan(row.intensity) or row.uncounted_self else f"{row.intensity:.3g}")
    counted += [f"{engineering(row.kept)}B"] if profile.backward else []
    return [*timed, *counted, engineering(row.parameters).rstrip()]


def bar(share: float) -> str:
    """A share of self time as a bar and a percentage; all bars add up to the whole."""
    return f"{'█' * round(share * BAR)}{'▏' if 0 < share * BAR < 0.5 else ''} {share:.0%}" if share >= 0.005 else ""


def tree_of(profile: Profile) -> dict[str, tuple[int, str]]:
    """For each module the depth of its first call, and its name there: its path below that of the call around it."""
    found: dict[str, tuple[int, str]] = {}
    for cost in profile:
        around = [*profile.around(cost)]
        above = around[0].path if around else ""
        name = cost.path.removeprefix(f"{above}.") if above else cost.path
        found.setdefault(cost.path, (len(around), name or profile.model))
    return found


def ms(seconds: float) -> str:
    """Milliseconds with three digits; "0" for almost none and "" for NaN."""
    return milliseconds(seconds) if seconds >= 5e-6 else "" if math.isnan(seconds) else "0"


def operations(flops: float, uncounted: int = 0) -> str:
    """A number of operations; "" for none, and ">" or "?" if some are not counted.

    >>> operations(2.5e9), operations(0), operations(2.5e9, 1), operations(0, 1)
    ('2.5 G', '', '>2.5 G', '?')
    """
    if math.isnan(flops) or (uncounted and not flops):
        return "?"
    return f"{'>' if uncounted else ''}{engineering(flops).rstrip()}" if flops else ""
